// Command banger-guest is the init and agent inside banger's guests.
package main

import (
	"os"

	"banger/internal/guest"
)

// version is set at build time.
var version = "dev"

func main() { os.Exit(guest.Main(os.Args, version)) }
