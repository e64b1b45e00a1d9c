package nested

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// systemVariable asks for the test of banger as a service, which takes a quarter of an
// hour and the host's package sources.
const systemVariable = "BANGER_TEST_SYSTEM"

// TestServiceOfSystemd has an ordinary user of a systemd that runs install banger as a
// service, and begin a VM and a command in it. Whatever becomes of the service and of
// the user's session, these go on.
func TestServiceOfSystemd(t *testing.T) {
	if os.Getenv(systemVariable) == "" {
		t.Skip("takes a quarter of an hour: make test-system runs it")
	}
	s := startSystem(t)
	s.login(t, "banger system install && banger system install") // twice is once
	first := s.service(t)
	s.login(t, "banger vm create --name inner --cold --vcpu 1 --memory 256M --disk-size 1G")
	s.until(t, "the VM has a scope of its own",
		`grep -q /banger-vm-.*scope$ /proc/$(banger vm show inner | sed -n 's/.*"shim_pid": \([0-9]*\).*/\1/p')/cgroup`)
	boot := s.bootID(t)
	// This session ends and leaves the client of a command.
	s.login(t, `setsid banger exec inner -- sh -c 'while :; do echo x; sleep 1; done' >stream 2>stream.err </dev/null &`)
	lives := func(after string) {
		t.Helper()
		s.until(t, "the command goes on after "+after, `n=$(wc -l <stream); sleep 3; [ $(wc -l <stream) -gt $n ]`)
		if said := s.login(t, "cat stream.err"); said != "" {
			t.Errorf("after %s the command's client says %q", after, said)
		}
		if now := s.bootID(t); now != boot {
			t.Errorf("after %s the VM's boot id is %q, was %q", after, now, boot)
		}
	}
	lives("a logout")

	s.login(t, "banger system restart")
	second := s.service(t)
	if first == second {
		t.Errorf("the restarted service is still process %d", first)
	}
	lives("a restart")

	s.login(t, "kill -9 "+strconv.Itoa(second))
	s.until(t, "systemd starts a daemon that was killed", `p=$(banger system status | sed -n 's/^pid *//p'); [ "$p" ] && [ "$p" != `+strconv.Itoa(second)+` ]`)
	lives("the daemon was killed")

	third := s.service(t)
	s.login(t, "banger daemon stop && banger ps")
	if fourth := s.service(t); fourth == third {
		t.Errorf("after it was stopped the service is still process %d", fourth)
	}
	lives("a command started the daemon")

	t.Logf("%s", s.login(t, "systemd-analyze --user security --offline=true --threshold=75 --no-pager "+unitFile+" >exposed; tail -1 exposed"))

	s.login(t, "banger system uninstall")
	s.gone(t)
	lives("it was uninstalled")

	s.login(t, "banger system install")
	lives("it was installed again")
	s.login(t, "banger system uninstall --purge -f")
	s.gone(t)
	for _, left := range []string{"vms/*", "images/*", "kernels/by-name/*"} {
		if said := s.login(t, "ls -d .local/state/banger/"+left+" 2>/dev/null || true"); said != "" {
			t.Errorf("a purge left %s", said)
		}
	}
	if said := s.login(t, "ps -u "+person+" -o args | grep '[b]anger shim' || true"); said != "" {
		t.Errorf("a purge left %s", said)
	}
}

// testKernelTellsOfASetClock runs that test of the shim's where the clock may be set.
func (s *system) testKernelTellsOfASetClock(t *testing.T) {
	const name = "TestKernelTellsOfASetClock"
	test := filepath.Join(t.TempDir(), "shim.test")
	t.Setenv("CGO_ENABLED", "0")
	output(t, "go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", test, "banger/internal/shim")
	s.banger(t, "cp", test, "outer:/opt/shim.test")
	said := s.must(t, "BANGER_TEST_SET_CLOCK=1 /opt/shim.test -test.v -test.run '^"+name+"$'")
	if !strings.Contains(said, "--- PASS: "+name+" ") {
		t.Errorf("%s did not pass:\n%s", name, said)
	}
}

// system is an outer VM whose init is systemd, where the person lingers.
type system struct{ *outer }

const unitFile = ".config/systemd/user/banger.service"

func startSystem(t *testing.T) *system {
	t.Helper()
	qemu, _ := hostPrograms(t)
	s := &system{&outer{world: openWorld(t)}}
	t.Cleanup(s.world.Close)
	s.boot(t, "--init", "systemd", "--nat")
	s.giveBanger(t)
	s.giveProgram(t, "qemu-system-x86_64", qemu)
	s.testKernelTellsOfASetClock(t)
	// A user's systemd wants these; the image has no sessions.
	s.must(t, "export DEBIAN_FRONTEND=noninteractive; apt-get -qq -o Acquire::Languages=none update && "+
		"apt-get -qq install -y --no-install-recommends libpam-systemd dbus-user-session")
	s.must(t, "modprobe kvm_amd && chmod 666 /dev/kvm && loginctl enable-linger "+person)
	s.must(t, "for i in $(seq 120); do [ -S /run/user/$(id -u "+person+")/bus ] && exit 0; sleep 1; done; exit 1")
	return s
}

// login runs a script in a session of the person's, which ends with it.
func (s *system) login(t *testing.T, script string) string {
	t.Helper()
	said, err := s.run(t, "root", script, "su -l "+person+` -c 'sh -ec "$(cat)"'`)
	if err != nil {
		t.Fatalf("%s\n%v", script, err)
	}
	return said
}

// until waits for a shell command of the person's to succeed.
func (s *system) until(t *testing.T, what, condition string) {
	t.Helper()
	if s.login(t, "for i in $(seq 60); do if "+condition+"; then echo yes; exit; fi; sleep 1; done") != "yes" {
		t.Errorf("not so: %s", what)
	}
}

// service is the process of the service, which runs.
func (s *system) service(t *testing.T) int {
	t.Helper()
	var status struct {
		State string `json:"state"`
		PID   int    `json:"pid"`
	}
	said := s.login(t, "banger system status --json")
	if err := json.Unmarshal([]byte(said), &status); err != nil || status.State != "active" || status.PID == 0 {
		t.Fatalf("the service is not active (%v): %s", err, said)
	}
	return status.PID
}

// gone wants no trace of the service.
func (s *system) gone(t *testing.T) {
	t.Helper()
	said := s.login(t, "banger system status >/dev/null 2>&1 && echo it runs; ls "+unitFile+" 2>/dev/null || true; "+
		"systemctl --user list-units --failed --no-legend banger.service")
	if said != "" {
		t.Errorf("of the service is left: %s", said)
	}
}

func (s *system) bootID(t *testing.T) string {
	t.Helper()
	return s.login(t, "banger exec inner -- cat /proc/sys/kernel/random/boot_id")
}
