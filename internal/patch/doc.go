// Package patch carries what a guest made of a tree over into the host's: all of
// it or nothing, and never outside that tree or into a .git.
//
// It holds what a change is, which paths are refused, and how changes are
// compared with a tree, written and undone. What it is given comes from a guest
// and is taken for hostile. It must not know of git's commands, guests or VMs.
package patch
