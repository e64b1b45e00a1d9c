package shim

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"banger"
	"banger/internal/guestlink"
	"banger/internal/guestwire"
	"banger/internal/paths"
	"banger/internal/vmm"
	"banger/internal/vmm/vmmtest"
)

// BenchmarkExec measures what the shim adds to a command: compare with the
// same on the bare link.
func BenchmarkExec(b *testing.B) {
	for _, through := range []string{"link", "shim"} {
		b.Run(through, func(b *testing.B) {
			conn := benchConn(b, through == "shim")
			for b.Loop() {
				benchCommand(b, conn, "/bin/true")
			}
		})
	}
}

// BenchmarkCall measures the shim's share alone: nothing is started for a call.
func BenchmarkCall(b *testing.B) {
	for _, through := range []string{"link", "shim"} {
		b.Run(through, func(b *testing.B) {
			link := guestlink.Over(benchConn(b, through == "shim"))
			for b.Loop() {
				if _, err := link.Stat(context.Background(), "/"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOutput measures a stream's throughput in the same way.
func BenchmarkOutput(b *testing.B) {
	for _, through := range []string{"link", "shim"} {
		b.Run(through, func(b *testing.B) {
			conn := benchConn(b, through == "shim")
			b.SetBytes(64 << 20)
			for b.Loop() {
				if n := benchCommand(b, conn, "/bin/head", "-c", "64M", "/dev/zero"); n != 64<<20 {
					b.Fatalf("%d bytes", n)
				}
			}
		})
	}
}

func benchCommand(b *testing.B, conn *guestwire.Conn, argv ...string) int64 {
	b.Helper()
	s, err := conn.Open(guestwire.KindExec, guestwire.Exec{Argv: argv}.Append(nil))
	if err != nil {
		b.Fatal(err)
	}
	n, _ := io.Copy(io.Discard, s.Reader(guestwire.Stdout))
	body, err := s.Wait(context.Background())
	if exit, _ := guestwire.ParseExit(body); err != nil || exit.Status != 0 {
		b.Fatal(exit, err)
	}
	return n
}

func benchConn(b *testing.B, shim bool) *guestwire.Conn {
	b.Helper()
	dir := paths.VM(b.TempDir())
	kernel := filepath.Join(string(dir), "vmlinux")
	if err := os.WriteFile(kernel, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	launch := Launch{ID: banger.NewID(), Name: "bench", Driver: "fake",
		Machine: vmm.Config{Dir: string(dir), Binary: "/proc/self/exe", VCPU: 1, MemoryMiB: 128, Kernel: kernel}}
	if !shim {
		m, err := vmmtest.Fake{}.Boot(context.Background(), launch.Machine, vmm.IO{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = m.Signal(syscall.SIGKILL); <-m.Done() })
		l, err := guestlink.Connect(m.Agent(), guestwire.NewToken())
		if err != nil {
			b.Fatal(err)
		}
		return l.Conn()
	}
	s := &Starter{Exe: "/proc/self/exe", Args: []string{"shim"}}
	c, err := s.Start(context.Background(), dir, launch)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_, _ = c.Kill(context.Background(), syscall.SIGKILL)
		s.reapers.Wait()
	})
	if _, err := c.Guest().Health(context.Background()); err != nil { // it is up
		b.Fatal(fmt.Errorf("the guest: %w", err))
	}
	return c.Conn()
}
