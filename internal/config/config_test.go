package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
)

func testHost() Host {
	return Host{CPUs: 12, RAMBytes: 24 * banger.GiB, Home: "/home/ada", Getenv: func(string) string { return "" }}
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustLoad(t *testing.T, text string) (Config, []Warning) {
	t.Helper()
	c, warnings, err := load(write(t, text), testHost())
	if err != nil {
		t.Fatal(err)
	}
	return c, warnings
}

func setting(t *testing.T, c Config, key string) Setting {
	t.Helper()
	for _, s := range c.Settings() {
		if s.Key == key {
			return s
		}
	}
	t.Fatalf("no setting %s in %v", key, c.Settings())
	return Setting{}
}

func TestWithoutAFileDefaultsComeFromHost(t *testing.T) {
	c, warnings, err := load(filepath.Join(t.TempDir(), "none.toml"), testHost())
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if c.VMDefaults.VCPU != 3 || c.VMDefaults.MemoryMiB != 3072 || c.VMDefaults.DiskBytes != 8*banger.GiB {
		t.Errorf("got %+v", c.VMDefaults)
	}
	if got := setting(t, c, "vm_defaults.vcpu"); got != (Setting{"vm_defaults.vcpu", "3", "host"}) {
		t.Error(got)
	}
	if got := setting(t, c, "default_image_name"); got != (Setting{"default_image_name", "debian-bookworm", "default"}) {
		t.Error(got)
	}
}

func TestHostShape(t *testing.T) {
	for _, tt := range []struct {
		cpus   int
		ram    int64
		vcpu   int
		memory int64
		origin string
	}{
		{0, 0, 2, 2048, FromDefault},
		{1, banger.GiB, 1, 1024, FromHost},
		{2, 24*banger.GiB - 1, 1, 2816, FromHost},
		{64, 512 * banger.GiB, 4, 8192, FromHost},
	} {
		h := Host{CPUs: tt.cpus, RAMBytes: tt.ram}
		vcpu, origin := h.vcpu()
		memory, origin2 := h.memoryMiB()
		if vcpu != tt.vcpu || memory != tt.memory || origin != tt.origin || origin2 != tt.origin {
			t.Errorf("%+v: got %d %d %s %s", tt, vcpu, memory, origin, origin2)
		}
	}
}

func TestEveryKeyIsTaken(t *testing.T) {
	text := `log_level = "debug"
default_image_name = "mine"
default_kernel = "host"
vmm = "qemu"
firecracker_bin = "/opt/fc"
qemu_bin = "~/bin/qemu"
accel = "tcg"
ssh_key_path = "~/.ssh/id"
mise_bin = "/m"
auto_stop_stale_after = "24h"
idle_action = "suspend"
stats_poll_interval = "30s"
network_prefix = "10.9.8"
loopback_prefix = "127.80"
default_dns = "9.9.9.9"
inherit_proxy = true
inherit_ca = true
[vm_defaults]
vcpu = 4
memory_mib = 4096
disk_size = "16G"
nat = true
allow = ["example.com:443", "10.0.0.0/8"]
`
	c, warnings := mustLoad(t, text)
	if len(warnings) > 0 {
		t.Error(warnings)
	}
	if len(keys) != strings.Count(text, " = ") {
		t.Errorf("the text has %d keys of %d", strings.Count(text, " = "), len(keys))
	}
	for _, s := range c.Settings() {
		if s.Origin == FromDefault || s.Origin == FromHost {
			t.Errorf("%s was not taken from the file: %v", s.Key, s)
		}
	}
	if c.QEMUBin != "/home/ada/bin/qemu" || c.AutoStopStaleAfter != 24*time.Hour || !c.InheritCA {
		t.Errorf("got %+v", c)
	}
	if got := setting(t, c, "vm_defaults.disk_size"); got.Value != "16G" || got.Origin != c.File+":21" {
		t.Error(got)
	}
	if got := setting(t, c, "vm_defaults.allow").Value; got != "example.com:443 10.0.0.0/8" {
		t.Error(got)
	}
}

func TestTablesCanBeWrittenInline(t *testing.T) {
	c, _ := mustLoad(t, "# first\nvm_defaults = { vcpu = 1, disk_size = 4096 }\n"+
		`file_sync = [{ host = "~/.netrc", guest = "~/.netrc" }]`)
	if c.VMDefaults.VCPU != 1 || c.VMDefaults.DiskBytes != 4*banger.GiB || len(c.FileSync) != 1 {
		t.Errorf("got %+v", c)
	}
	if got := setting(t, c, "vm_defaults.vcpu").Origin; got != c.File+":2" {
		t.Error(got)
	}
}

func TestWrongFilesNameLineAndKey(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"\nfoo = 1", "line 2: foo: there is no such key"},
		{"[vm_defaults]\nallow = [\"https://example.com\"]", "line 2: vm_defaults.allow: cannot allow \"https://example.com\": a URL is no rule"},
		{"[vm_defaults]\nallow = [\"\"]", "line 2: vm_defaults.allow: cannot allow"},
		{"[vm_default]\n", "line 1: vm_default: there is no such key"},
		{"[vm_defaults]\ncpus = 1", "line 2: vm_defaults.cpus: there is no such key"},
		{"[vm_defaults.x]\ncpus = 1", "line 1: vm_defaults.x: there is no such key"},
		{"[[vmm]]", "line 1: vmm[0]: there is no such key"},
		{"vm_defaults = 3", "line 1: vm_defaults: there is no such key"},
		{"log_level = 3", "line 1: log_level: it must be a string, not 3"},
		{`accel = "fast"`, `line 1: accel: it must be one of auto, kvm, tcg, not "fast"`},
		{"x = ", "line 1: "},
		{"vmm = \"qemu\"\nvmm = \"qemu\"", "line 2: "},
		{"[vm_defaults]\nvcpu = \"2\"", "line 2: vm_defaults.vcpu: it must be a number of CPUs"},
		{"[vm_defaults]\nvcpu = 0", "vm_defaults.vcpu: it must be"},
		{"[vm_defaults]\nvcpu = 1.5", "vm_defaults.vcpu: it must be"},
		{"[vm_defaults]\nmemory_mib = 64", "vm_defaults.memory_mib: bad memory size 64 MiB"},
		{"[vm_defaults]\nmemory_mib = 30000", "the host's 24576 MiB"},
		{"[vm_defaults]\ndisk_size = \"1M\"", "vm_defaults.disk_size: bad disk size 1M"},
		{"[vm_defaults]\nallow = \"x\"", "vm_defaults.allow: it must be a list"},
		{`qemu_bin = "qemu"`, "qemu_bin: it must be a path that is absolute"},
		{`stats_poll_interval = "0s"`, "stats_poll_interval: it must be a time"},
		{`auto_stop_stale_after = 24`, "auto_stop_stale_after: it must be a time"},
		{`network_prefix = "fe80::/64"`, "network_prefix: it must be an IPv4 network"},
		{`loopback_prefix = "128.1"`, "loopback_prefix: it must be two numbers"},
		{`default_dns = "dns.example"`, "default_dns: it must be an IP address"},
		{"[[file_sync]]\nhost = \"~/a\"\nguest = \"/etc/a\"", "line 1: file_sync[0].guest: it must be a path under /root"},
		{"[[file_sync]]\nhost = \"~/a\"\nguest = \"/root/../etc\"", `file_sync[0].guest: it must be a path without ".."`},
		{"[[file_sync]]\nhost = \"~/a\"\nguest = \"~/a\"\n[[file_sync]]\nhost = \"~/../x\"\nguest = \"~/x\"", "line 4: file_sync[1].host: it must be a path without"},
		{"[[file_sync]]\nhost = \"~bob/a\"\nguest = \"~/a\"", "file_sync[0].host: it must be a path of your own home"},
		{"[[file_sync]]\nhost = \"a\"\nguest = \"~/a\"", "file_sync[0].host: it must be a path that is absolute"},
		{"[[file_sync]]\nhost = \"/etc/passwd\"\nguest = \"~/a\"", "file_sync[0].host: it must be a path inside your home"},
		{"[[file_sync]]\n", "file_sync[0].host: it is missing"},
		{"[[file_sync]]\nhost = \"~/a\"\nguest = \"~/a\"\nmode = \"rw\"", "line 4: file_sync[0].mode: it must be an octal mode"},
		{"[[file_sync]]\nfrom = \"~/a\"", "line 2: file_sync[0].from: there is no such key"},
	} {
		_, _, err := load(write(t, tt.text), testHost())
		if err == nil || !strings.Contains(err.Error(), tt.want) || banger.CodeOf(err) != banger.Conflict {
			t.Errorf("%q: got %v, want %q", tt.text, err, tt.want)
		}
	}
}

func TestReferenceKeysAreOneWarning(t *testing.T) {
	_, warnings := mustLoad(t, "bridge_name = \"br0\"\njailer_uid = 3\n[vm_defaults]\nsystem_overlay_size = \"8G\"\n")
	if len(warnings) != 1 {
		t.Fatal(warnings)
	}
	for _, want := range []string{"bridge_name (line 1)", "jailer_uid (line 2)", "vm_defaults.system_overlay_size (line 4)"} {
		if !strings.Contains(string(warnings[0]), want) {
			t.Errorf("%q does not name %q", warnings[0], want)
		}
	}
}

func TestFileSyncIsResolved(t *testing.T) {
	c, _ := mustLoad(t, "[[file_sync]]\nhost = \"~/.gitconfig\"\nguest = \"~/.gitconfig\"\nmode = \"0644\"\n"+
		"[[file_sync]]\nhost = \"/home/ada/.config/x\"\nguest = \"/root/.config/x\"\n")
	want := []FileSync{
		{"/home/ada/.gitconfig", "/root/.gitconfig", 0o644},
		{"/home/ada/.config/x", "/root/.config/x", 0o600},
	}
	if len(c.FileSync) != 2 || c.FileSync[0] != want[0] || c.FileSync[1] != want[1] {
		t.Errorf("got %+v", c.FileSync)
	}
	if got := setting(t, c, "file_sync[1]").Origin; got != c.File+":5" {
		t.Error(got)
	}
}

func TestEnvironmentOverridesLogLevel(t *testing.T) {
	host := testHost()
	host.Getenv = func(string) string { return "warn" }
	c, _, err := load(write(t, `log_level = "debug"`), host)
	if err != nil || setting(t, c, "log_level") != (Setting{"log_level", "warn", "BANGER_LOG_LEVEL"}) {
		t.Error(c.Settings(), err)
	}
	host.Getenv = func(string) string { return "loud" }
	if _, _, err := load(write(t, ""), host); err == nil || !strings.Contains(err.Error(), "BANGER_LOG_LEVEL") {
		t.Error(err)
	}
}

func TestSourceFollowsTheFile(t *testing.T) {
	path := write(t, `vmm = "qemu"`)
	s := NewSource(path)
	current := func() (string, error) {
		c, _, err := s.Current()
		return c.VMM, err
	}
	if vmm, err := current(); vmm != "qemu" || err != nil {
		t.Fatal(vmm, err)
	}
	// Same size and, set back, same time: only the inode tells.
	info, _ := os.Stat(path)
	other := write(t, `vmm = "auto"`)
	if err := errors.Join(os.Chtimes(other, info.ModTime(), info.ModTime()), os.Rename(other, path)); err != nil {
		t.Fatal(err)
	}
	if vmm, err := current(); vmm != "auto" || err != nil {
		t.Error(vmm, err)
	}
	if err := os.WriteFile(path, []byte("vmm = 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := current(); err == nil {
			t.Error("a wrong file was accepted")
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if vmm, err := current(); vmm != "auto" || err != nil {
		t.Error(vmm, err)
	}
}

func TestUnreadableFileIsAnError(t *testing.T) {
	_, _, err := Load(t.TempDir())
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
