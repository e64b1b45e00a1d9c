// Package banger is the vocabulary of banger: VMs, images, kernels, their
// names, sizes and states, and the errors everybody speaks.
//
// It does no I/O and imports nothing of the project; every other package may
// import it.
package banger
