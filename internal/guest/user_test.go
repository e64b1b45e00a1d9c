package guest

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"banger/internal/guestwire"
)

var someAccounts = accounts{
	passwd: "root:x:0:0:root:/root:/bin/bash\ndev:x:1000:1000:A,B:/home/dev:/bin/zsh\nbroken\n",
	group:  "root:x:0:\nsudo:x:27:dev,other\ndev:x:1000:dev\ndocker:x:999:dev\n",
}

func TestUsersAreFoundByNameAndNumber(t *testing.T) {
	dev := user{name: "dev", uid: 1000, gid: 1000, groups: []uint32{27, 999}, home: "/home/dev", shell: "/bin/zsh"}
	for spec, want := range map[string]user{
		"dev":       dev,
		"1000":      dev,
		"root":      {name: "root", home: "/root", shell: "/bin/bash"},
		"4242":      {name: "4242", uid: 4242, gid: 4242, home: "/"},
		"dev:sudo":  {name: "dev", uid: 1000, gid: 27, home: "/home/dev", shell: "/bin/zsh"},
		"4242:4343": {name: "4242", uid: 4242, gid: 4343, home: "/"},
	} {
		if got, ok := someAccounts.find(spec); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %+v, %v", spec, got, ok)
		}
	}
	for _, spec := range []string{"nobody", "dev:nogroup", "-1", "99999999999"} {
		if got, ok := someAccounts.find(spec); ok {
			t.Errorf("%s is %+v", spec, got)
		}
	}
}

func TestImageWithoutAccountsHasRoot(t *testing.T) {
	if u, ok := (accounts{}).find("root"); !ok || u.uid != 0 || u.home != "/root" {
		t.Fatalf("got %+v, %v", u, ok)
	}
	if u, ok := (accounts{}).find("0"); !ok || u.name != "root" {
		t.Fatalf("got %+v, %v", u, ok)
	}
}

func TestUnknownUserIsMade(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root gives files away")
	}
	root := t.TempDir()
	for file, content := range map[string]string{
		"etc/passwd": strings.TrimSuffix(someAccounts.passwd, "\n"), "etc/group": someAccounts.group,
		"etc/skel/.profile": "# hello\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, file), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	u, err := addUser(root, "thales", 1234)
	if err != nil || u.uid != 1234 || u.gid != 1234 || u.home != "/home/thales" {
		t.Fatalf("made %+v, %v", u, err)
	}
	info, err := os.Stat(root + "/home/thales/.profile")
	if err != nil || ownerOf(info) != [2]int{1234, 1234} {
		t.Fatalf("the skeleton: %v", err)
	}
	if u, err := addUser(root, "other", 1000); err != nil || u.uid != 1001 { // 1000 is dev's
		t.Fatalf("made %+v, %v", u, err)
	}
	passwd, err := os.ReadFile(root + "/etc/passwd")
	if want := someAccounts.passwd + "thales:x:1234:1234::/home/thales:/bin/sh\nother:x:1001:1001::/home/other:/bin/sh\n"; string(passwd) != want {
		t.Fatalf("passwd is %q, %v", passwd, err)
	}
	for _, name := range []string{"a:b", "Ä", "-x", "", "a\nb"} {
		if _, err := addUser(root, name, 0); err == nil {
			t.Errorf("made the user %q", name)
		}
	}
}

func TestHostsKeepTheUsersLines(t *testing.T) {
	first := hosts("", guestwire.Setup{Hostname: "one", GuestIP: "10.77.0.2"})
	want := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.77.0.2       one" + strings.Repeat(" ", 45) + "# this VM\n"
	if first != want {
		t.Fatalf("got %q", first)
	}
	edited := "10.9.9.9 build # mine\n" + first
	second := hosts(edited, guestwire.Setup{Hostname: "two", GuestIP: "10.77.0.3"})
	if want := strings.Replace(edited, "10.77.0.2       one", "10.77.0.3       two", 1); second != want {
		t.Fatalf("got %q", second)
	}
}

func TestResolvConf(t *testing.T) {
	dir := t.TempDir()
	file, written := filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "disk", "written")
	if err := os.Symlink("../run/no/where", file); err != nil {
		t.Fatal(err)
	}
	if err := writeResolvConf(file, written, resolvConf([4]byte{10, 77, 0, 1})); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(file); err != nil || !info.Mode().IsRegular() {
		t.Fatalf("the dangling link is still there: %v", err)
	}
	if got, _ := os.ReadFile(file); !strings.HasSuffix(string(got), "\nnameserver 10.77.0.1\n") {
		t.Fatalf("it is %q", got)
	}
	if err := writeResolvConf(file, written, resolvConf([4]byte{})); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(file); strings.Contains(string(got), "nameserver") {
		t.Fatalf("without a network it is %q", got)
	}
	if err := os.WriteFile(file, []byte("nameserver 9.9.9.9\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeResolvConf(file, written, resolvConf([4]byte{10, 77, 0, 1})); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(file); string(got) != "nameserver 9.9.9.9\n" {
		t.Fatalf("the edited file became %q", got)
	}
}
