// Command banger is the command line, the daemon and the shims, in one
// binary.
package main

import (
	"os"

	"banger/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], cli.Real())) }
