package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/config"
	"banger/internal/kernel"
	"banger/internal/paths"
	"banger/internal/vm"
	"banger/internal/vmm"
)

func TestStampTellsAProgramFromItsSuccessor(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "vmm")
	if got := stamp(bin); got != "" {
		t.Errorf("of none: %q", got)
	}
	if err := os.WriteFile(bin, []byte("one"), 0o755); err != nil {
		t.Fatal(err)
	}
	first := stamp(bin)
	if first == "" || stamp(bin) != first {
		t.Errorf("of one: %q, then %q", first, stamp(bin))
	}
	if err := os.Chtimes(bin, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if stamp(bin) == first {
		t.Error("the same though it was replaced")
	}
}

// TestKernelWithoutVsockIsNotForFirecracker has a chooser that has found a Firecracker fit.
func TestKernelWithoutVsockIsNotForFirecracker(t *testing.T) {
	dir := t.TempDir()
	bin := program(t, dir, "qemu", "QEMU emulator version 7.2.0")
	fire := program(t, dir, "firecracker", "Firecracker v1.16.1")
	with, without := kernelOf(t, "with", "008-vmw_vsock_virtio_transport.ko"), kernelOf(t, "without", "002-virtio_mmio.ko")
	var log strings.Builder
	d := &daemon{dirs: paths.Dirs{State: dir, Cache: dir}, log: slog.New(slog.NewTextHandler(&log, nil)), kernels: kernel.NewStore(dir, dir)}
	for _, asked := range []string{"auto", "firecracker"} {
		log.Reset()
		c := &chooser{d: d}
		conf := config.Config{VMM: asked, FirecrackerBin: fire, QEMUBin: bin, Accel: "auto", File: "config.toml"}
		c.last = vm.Machine{Driver: "firecracker", Binary: fire, Accel: vmm.KVM}
		c.of = c.settings(conf)
		if m, err := c.choose(t.Context(), conf, with); err != nil || m.Driver != "firecracker" {
			t.Errorf("%s, a kernel with vsock: %+v, %v", asked, m, err)
		}
		if asked == "auto" {
			conf.Accel = "tcg" // QEMU's own choice needs no trial then
			c.of = c.settings(conf)
		}
		m, err := c.choose(t.Context(), conf, without)
		if asked == "auto" && (err != nil || m.Driver != "qemu" || !strings.Contains(log.String(), "the kernel without has no vsock")) {
			t.Errorf("by itself it takes %+v, %v, and says\n%s", m, err, log.String())
		}
		if asked == "firecracker" && (banger.CodeOf(err) != banger.BadRequest || !strings.Contains(err.Error(), "has no vsock") || len(banger.HintsOf(err)) == 0) {
			t.Errorf("where it is asked for: %+v, %v", m, err)
		}
	}
}

func program(t *testing.T, dir, name, says string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho '"+says+"'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// kernelOf is a kernel that loads one module.
func kernelOf(t *testing.T, name, module string) banger.Kernel {
	t.Helper()
	k := banger.Kernel{Name: name, Digest: name, Dir: t.TempDir()}
	k.VmlinuxPath = filepath.Join(k.Dir, "vmlinux")
	if err := os.Mkdir(filepath.Join(k.Dir, "early"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{filepath.Join(k.Dir, "early", "order"): module + "\n", k.VmlinuxPath: ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return k
}
