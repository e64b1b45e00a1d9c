package vmmtest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"banger"
	"banger/internal/kernel"
	"banger/internal/vmm"
)

// pullLimit bounds fetching a kernel from the host's package sources.
const pullLimit = 5 * time.Minute

// cacheVariable names a directory in which kernels for tests are kept.
const cacheVariable = "BANGER_TEST_CACHE"

// GuestConfig describes a machine that boots Debian's kernel into the test
// guest. It skips the test under -short: a boot takes seconds, and the first
// one fetches the kernel.
func GuestConfig(t testing.TB, binary string, accel vmm.Accel) vmm.Config {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a real machine: not with -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), pullLimit)
	defer cancel()
	k, err := kernelStore(t).Pull(ctx, banger.DefaultKernel, false, banger.Access{}, func(stage string) { t.Log(stage) })
	if err != nil {
		t.Fatalf("no kernel to test with: %v", err)
	}
	agent, err := os.ReadFile(GuestBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	initrd, _, err := kernel.Initramfs(ctx, k, agent)
	if err != nil {
		t.Fatal(err)
	}
	return vmm.Config{
		Binary: binary, Accel: accel, VCPU: 1, MemoryMiB: 256,
		Kernel: k.VmlinuxPath, Initrd: initrd,
	}
}

func kernelStore(t testing.TB) *kernel.Store {
	t.Helper()
	dir := os.Getenv(cacheVariable)
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatalf("set %s: %v", cacheVariable, err)
		}
		dir = filepath.Join(cache, "banger-test")
	}
	return kernel.NewStore(filepath.Join(dir, "kernels"), filepath.Join(dir, "downloads"))
}

// GuestVariable names a test guest that was built, for hosts without Go.
const GuestVariable = "BANGER_TEST_GUEST"

// GuestBinary builds the test guest: /init of a machine, or, run with "serve",
// a process for Fake.
func GuestBinary(t testing.TB) string {
	t.Helper()
	if built := os.Getenv(GuestVariable); built != "" {
		return built
	}
	out := filepath.Join(t.TempDir(), "testguest")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "banger/internal/vmm/vmmtest/testguest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the test guest: %v\n%s", err, said)
	}
	return out
}
