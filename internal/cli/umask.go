package cli

import (
	"io/fs"
	"sync"

	"golang.org/x/sys/unix"
)

// umask is the process's umask. It can only be read by setting it.
var umask = sync.OnceValue(func() (mask fs.FileMode) {
	old := unix.Umask(0o077)
	unix.Umask(old)
	return fs.FileMode(old)
})
