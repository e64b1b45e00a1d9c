package child

import "syscall"

// OwnFault tells a signal that a failing program brings on itself, a broken seccomp
// rule among them, from one that was sent, as sent was last.
func OwnFault(sig, sent syscall.Signal) bool {
	switch sig {
	case syscall.SIGABRT, syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGILL, syscall.SIGFPE, syscall.SIGSYS, syscall.SIGTRAP:
		return sig != sent
	}
	return false
}
