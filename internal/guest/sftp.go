package guest

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pkg/sftp"
)

// serveFiles is an SFTP server in a process of its own, which has the user, the
// groups and the home of whoever asked. Relative paths begin in that home.
func serveFiles() int {
	home, err := os.Getwd()
	if err != nil {
		home = "/"
	}
	server, err := sftp.NewServer(standardStreams{os.Stdin, os.Stdout}, sftp.WithServerWorkingDirectory(home))
	if err == nil {
		err = server.Serve()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, "sftp:", err)
		return 1
	}
	return 0
}

// standardStreams are read and written as one.
type standardStreams struct {
	io.Reader
	io.WriteCloser
}
