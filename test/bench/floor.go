package main

import (
	"context"

	"banger/internal/bench"
	"banger/internal/paths"
	"banger/internal/shim"
)

func execThroughShim(vm string) func() error {
	return func() error {
		c, err := shim.Dial(context.Background(), paths.VM(vm))
		if err != nil {
			return err
		}
		defer c.Close()
		return bench.RunTrue(context.Background(), c.Conn())
	}
}
