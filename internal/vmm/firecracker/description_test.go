package firecracker

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/vmm/vmmtest/standin"
)

// exchange is a call, and whether it is carried out.
type exchange struct {
	method, path, body string
	ok                 bool
}

// exchanges go through the states of a machine, each call with those that are refused there. KERNEL and
// DISK are files that there are.
func exchanges() []exchange {
	const (
		load   = `{"snapshot_path":"state","mem_backend":{"backend_type":"File","backend_path":"memory"}}`
		create = `{"snapshot_type":"Full","snapshot_path":"state","mem_file_path":"memory"}`
		config = `{"vcpu_count":1,"mem_size_mib":128}`
		drive  = `{"drive_id":"disk0","path_on_host":"DISK","is_root_device":false,"is_read_only":false,"cache_type":"Writeback"}`
	)
	return []exchange{
		{"GET", "/", "", true},
		{"GET", "/version", "", true},
		{"GET", "/nosuch", "", false},
		{"PATCH", "/", "{}", false},
		{"PATCH", "/vm", `{"state":"Paused"}`, false}, // before the start
		{"PUT", "/snapshot/create", create, false},
		{"PATCH", "/drives/disk0", `{"drive_id":"disk0","path_on_host":"DISK"}`, false},
		{"PUT", "/actions", `{"action_type":"SendCtrlAltDel"}`, false},
		{"PUT", "/machine-config", `{"vcpu_count":1}`, false},
		{"PUT", "/machine-config", `{"vcpu_count":0,"mem_size_mib":128}`, false},
		{"PUT", "/machine-config", `{"vcpu_count":33,"mem_size_mib":128}`, false},
		{"PUT", "/machine-config", `{"vcpu_count":"1","mem_size_mib":128}`, false},
		{"PUT", "/machine-config", `{"vcpu_count":1,"mem_size_mib":128,"nosuch":1}`, false},
		{"PUT", "/machine-config", `not JSON`, false},
		{"PUT", "/machine-config", config, true},
		{"PUT", "/boot-source", `{"boot_args":"x"}`, false},
		{"PUT", "/boot-source", `{"kernel_image_path":"nosuch"}`, false},
		{"PUT", "/boot-source", `{"kernel_image_path":"KERNEL","initrd_path":"nosuch"}`, false},
		{"PUT", "/boot-source", `{"kernel_image_path":"KERNEL","boot_args":"console=ttyS0","more":1}`, false},
		{"PUT", "/boot-source", `{"kernel_image_path":"KERNEL","boot_args":"console=ttyS0"}`, true},
		{"PUT", "/drives/disk0", `{"drive_id":"disk0","path_on_host":"DISK"}`, false},
		{"PUT", "/drives/disk1", drive, false}, // another name than in the path
		{"PUT", "/drives/disk0", strings.Replace(drive, "DISK", "nosuch", 1), false},
		{"PUT", "/drives/disk0", strings.Replace(drive, "Writeback", "Writethrough", 1), false},
		{"PUT", "/drives/disk0", drive, true},
		{"PUT", "/network-interfaces/card", `{"iface_id":"card"}`, false},
		{"PUT", "/network-interfaces/card", `{"iface_id":"card","host_dev_name":"nosuch0","guest_mac":"52:54"}`, false},
		{"PUT", "/network-interfaces/card", `{"iface_id":"card","host_dev_name":"nosuch0","mtu":67}`, false},
		{"PUT", "/vsock", `{"guest_cid":3}`, false},
		{"PUT", "/vsock", `{"guest_cid":3,"uds_path":"vsock"}`, true},
		{"PUT", "/entropy", `{"nosuch":1}`, false},
		{"PUT", "/entropy", `{}`, true},
		{"PUT", "/snapshot/load", load, false}, // of a machine that was described
		{"PUT", "/actions", `{"action_type":"Instancestart"}`, false},
		{"PUT", "/actions", `{"action_type":"InstanceStart"}`, true},
		{"PUT", "/actions", `{"action_type":"InstanceStart"}`, false}, // once more
		{"PUT", "/machine-config", config, false},                     // after the start
		{"PUT", "/boot-source", `{"kernel_image_path":"KERNEL"}`, false},
		{"PUT", "/vsock", `{"guest_cid":3,"uds_path":"vsock2"}`, false},
		{"PUT", "/entropy", `{}`, false},
		{"PUT", "/snapshot/load", load, false},
		{"PUT", "/snapshot/create", create, false}, // before the pause
		{"PATCH", "/vm", `{"state":"paused"}`, false},
		{"PATCH", "/vm", `{"state":"Paused"}`, true},
		{"PATCH", "/vm", `{"state":"Paused"}`, true}, // once more
		{"GET", "/", "", true},
		{"PATCH", "/drives/nosuch", `{"drive_id":"nosuch","path_on_host":"DISK"}`, false},
		{"PATCH", "/drives/disk0", `{"drive_id":"disk0","path_on_host":"nosuch"}`, false},
		{"PATCH", "/drives/disk0", `{"drive_id":"disk0","path_on_host":"DISK"}`, true},
		{"PUT", "/snapshot/create", `{"snapshot_path":"state"}`, false},
		{"PUT", "/snapshot/create", `{"snapshot_type":"Half","snapshot_path":"state","mem_file_path":"memory"}`, false},
		{"PUT", "/snapshot/create", `{"snapshot_type":"Diff","snapshot_path":"state","mem_file_path":"/proc/self/nowhere"}`, false},
		{"PUT", "/snapshot/create", create, true},
		{"PATCH", "/vm", `{"state":"Resumed"}`, true},
		{"PATCH", "/vm", `{"state":"Resumed"}`, true}, // once more
	}
}

// loads are of a machine that is to be restored.
func loads() []exchange {
	return []exchange{
		{"PUT", "/snapshot/load", `{"snapshot_path":"state"}`, false},
		{"PUT", "/snapshot/load", `{"snapshot_path":"state","mem_file_path":"memory","mem_backend":{"backend_type":"File","backend_path":"memory"}}`, false},
		{"PUT", "/snapshot/load", `{"snapshot_path":"state","mem_backend":{"backend_type":"Tape","backend_path":"memory"}}`, false},
		{"PUT", "/snapshot/load", `{"snapshot_path":"state","nosuch":1,"mem_backend":{"backend_type":"File","backend_path":"memory"}}`, false},
		{"PUT", "/snapshot/load", `{"snapshot_path":"state","mem_backend":{"backend_type":"File","backend_path":"memory"},
			"vsock_override":{"uds_path":"vsock3"},"resume_vm":false}`, true},
		{"PATCH", "/vm", `{"state":"Resumed"}`, true},
		{"PUT", "/snapshot/load", `{"snapshot_path":"state","mem_backend":{"backend_type":"File","backend_path":"memory"}}`, false},
	}
}

// TestDescriptionOfTheAPI sends calls that are right and others that are not to the stand-in, and to
// Firecracker where there is one and a device of KVM, which need not be able to run a kernel.
func TestDescriptionOfTheAPI(t *testing.T) {
	kernel, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("the stand-in", func(t *testing.T) {
		s := standin.New(t)
		converse(t, s.Binary, kernel)
		if wrong := s.Wrong(); len(wrong) < 30 {
			t.Errorf("only %d calls were wrong", len(wrong))
		}
	})
	t.Run("Firecracker", func(t *testing.T) {
		found, err := Find(os.Getenv("FIRECRACKER"))
		if err != nil {
			t.Skipf("no Firecracker: %v", err)
		}
		kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
		if err != nil {
			t.Skip(err)
		}
		kvm.Close()
		t.Logf("Firecracker %s", found.Version)
		converse(t, found.Path, realKernel(t))
	})
}

// realKernel is one that a processor can be set up for: it need not run.
func realKernel(t *testing.T) string {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(os.Getenv("BANGER_TEST_CACHE"), "kernels/by-digest/*/vmlinux"))
	if len(files) == 0 {
		t.Skip("there is no kernel")
	}
	return files[0]
}

func converse(t *testing.T, bin, kernel string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "banger-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	disk := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	files := strings.NewReplacer("KERNEL", kernel, "DISK", disk)
	for _, all := range [][]exchange{exchanges(), loads()} {
		ask, end := serving(t, bin, dir)
		for _, e := range all {
			status := ask(e.method, e.path, files.Replace(e.body))
			if ok := status/100 == 2; ok != e.ok {
				t.Errorf("%s %s %s is answered with %d", e.method, e.path, e.body, status)
			}
		}
		end()
	}
}

// serving starts a process with the API.
func serving(t *testing.T, bin, dir string) (ask func(method, path, body string) int, end func()) {
	t.Helper()
	cmd := exec.Command(bin, "--api-sock", "api", "--id", "banger", "--level", "Off")
	cmd.Dir = dir
	socket := filepath.Join(dir, "api")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	ask = func(method, path, body string) int {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for limit := time.Now().Add(time.Minute); ask("GET", "/", "") == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("nobody listens")
		}
	}
	return ask, func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		for _, name := range []string{"api", "vsock", "vsock2", "vsock3"} {
			_ = os.Remove(filepath.Join(dir, name))
		}
	}
}
