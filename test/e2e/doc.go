// Package e2e tries banger as a person does: the built binary, real QEMU, a
// real Debian guest, real SQLite. It knows nothing of banger's insides; what it
// finds out, it finds out with commands and from /proc.
package e2e
