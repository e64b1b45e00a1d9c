package kernel

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"banger"
)

// The real thing: Debian's kernel from this host's package sources.
func TestPullGetsDebiansKernelOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("downloads a kernel package; run without -short")
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip("apt is not this host's package manager")
	}
	s := testStore(t)
	var mu sync.Mutex
	downloads := 0
	progress := func(stage string) {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(stage, "importing") {
			downloads++
		}
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := s.Pull(context.Background(), banger.DefaultKernel, false, banger.Access{}, progress); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if downloads != 1 {
		t.Errorf("imported %d times", downloads)
	}
	k, err := s.Get(banger.DefaultKernel)
	if err != nil || !strings.HasSuffix(k.Release, "-cloud-amd64") || k.VmlinuzSHA256 == "" {
		t.Fatalf("%+v, %v", k, err)
	}
	again, err := s.Pull(context.Background(), banger.DefaultKernel, true, banger.Access{}, nil)
	if err != nil || again.Digest != k.Digest {
		t.Errorf("forced, it has the digest %s instead of %s, %v", again.Digest, k.Digest, err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.downloads, ".tmp-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	order, err := os.ReadFile(filepath.Join(k.Dir, "early", "order"))
	if err != nil || !strings.Contains(string(order), "-virtio_console.ko\n") || !strings.Contains(string(order), "-vmw_vsock_virtio_transport.ko\n") {
		t.Errorf("order:\n%s%v", order, err)
	}
}
