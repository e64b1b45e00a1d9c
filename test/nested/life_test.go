package nested

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// testLife has a person do with VMs what there is to do. The acceleration is left to banger, as
// users do.
func (o *outer) testLife(t *testing.T, d driver, count int) {
	o.do(t, fmt.Sprintf("mkdir -p ~/.config/banger && echo 'vmm = %q' >~/.config/banger/config.toml; banger daemon stop || true; rm -rf ~/.cache/banger/templates", d.name))
	t.Run("boots cold", func(t *testing.T) { o.testColdBoots(t, count) })
	vm := inner{o, "life"}
	o.do(t, "banger vm create --name life --cold")
	vm.sign(t)
	t.Run("is held", func(t *testing.T) { vm.testHeld(t, d) })
	t.Run("grows", vm.testGrows)
	t.Run("reaches out and is reached", vm.testNetwork)
	t.Run("is suspended", vm.testSuspended)
	t.Run("has snapshots", vm.testSnapshots)
	t.Run("is forked", func(t *testing.T) { vm.testForks(t, count) })
	t.Run("outlives its shim and its VMM", vm.testKilled)
	o.do(t, "banger rm -f life")
	t.Run("has a work seed", o.testSeed)
	t.Run("four at once", o.testFour)
	t.Run("nothing is left", o.testNothingLeft)
	o.do(t, "banger daemon stop")
}

func (o *outer) testColdBoots(t *testing.T, count int) {
	var boots []string
	for range count {
		boots = append(boots, o.do(t, "banger run --rm --cold -- cat /proc/sys/kernel/random/boot_id"))
	}
	distinct(t, boots, count)
}

// testHeld wants all that can hold a VMM back to be in force, which banger reads from /proc.
func (i inner) testHeld(t *testing.T, d driver) {
	s := i.show(t)
	if s.Runtime.Accel != "kvm" || s.Runtime.VMM != d.name {
		t.Errorf("it runs on %+v, not on %s under KVM", s.Runtime, d.name)
	}
	for _, layer := range []string{
		"user namespace", "network namespace", "ipc namespace", "uts namespace", "mount namespace",
		"no new privileges", "seccomp", "oom_score_adj 300", "Landlock",
	} {
		if !slices.Contains(s.Isolation, layer) {
			t.Errorf("without %s: %q", layer, s.Isolation)
		}
	}
}

// testGrows has the disk grow while the VM runs.
func (i inner) testGrows(t *testing.T) {
	boot := i.show(t).BootID
	i.do(t, "banger vm set life --disk-size 9G")
	i.want(t, "[ $(df --output=size -B1 / | tail -1) -gt 9000000000 ] && echo grown; "+readSigns, "grown\n"+allSigns)
	if now := i.show(t).BootID; now != boot {
		t.Errorf("it was booted for it: %s, %s", boot, now)
	}
}

// farAddress is one of the internet's, which is a network namespace of the outer VM here.
const farAddress = "9.9.9.9"

func (i inner) testNetwork(t *testing.T) {
	i.do(t, "mkdir -p /tmp/www && echo page >/tmp/www/page && cd /tmp/www && (setsid python3 -m http.server --bind 127.0.0.1 8099 >/dev/null 2>&1 </dev/null &)")
	i.must(t, `ip netns list | grep -q far || {
		ip netns add far && ip link add near type veth peer name far0 netns far
		ip addr add 9.9.9.1/24 dev near && ip link set near up
		ip -n far addr add `+farAddress+`/24 dev far0 && ip -n far link set far0 up
		cd /tmp/www && (setsid ip netns exec far python3 -m http.server --bind `+farAddress+` 80 >/dev/null 2>&1 </dev/null &)
	}`)
	const (
		fromHost = "curl -sS -m 30 http://host.vm:8099/page"
		fromFar  = "curl -sS -m 30 http://" + farAddress + "/page"
	)
	refused := func(from string) {
		t.Helper()
		if said, err := i.run(t, person, "", fmt.Sprintf("banger exec life -- %s", from)); err == nil {
			t.Errorf("unasked, %s brought %q", from, said)
		}
	}
	refused(fromHost)
	refused(fromFar)
	i.do(t, "banger vm set life --allow host.vm:8099")
	i.want(t, fromHost, "page")
	refused(fromFar)
	i.do(t, "banger vm set life --nat")
	i.want(t, fromFar, "page")

	i.in(t, "mkdir -p /srv/www && echo inside >/srv/www/page")
	i.do(t, "banger exec -d life -- python3 -m http.server --bind 127.0.0.1 --directory /srv/www 8000")
	url := fmt.Sprintf("http://%s:8000/page", i.show(t).HostAddress)
	if got := i.do(t, "curl -sS --retry 60 --retry-delay 1 --retry-connrefused "+url); got != "inside" {
		t.Errorf("%s says %q", url, got)
	}
}

func (i inner) testSuspended(t *testing.T) {
	before := i.show(t)
	i.do(t, "banger vm suspend life")
	if s := i.show(t); s.State != "suspended" {
		t.Errorf("it is %s", s.State)
	}
	i.noProcess(t, before.VMMPID)
	i.do(t, "banger start life")
	i.want(t, readSigns, allSigns)
	if now := i.show(t).BootID; now != before.BootID {
		t.Errorf("it was booted: %s, %s", before.BootID, now)
	}
}

func (i inner) testSnapshots(t *testing.T) {
	i.do(t, "banger vm snapshot create life then")
	i.in(t, "echo later >/run/sign; echo later >/root/sign; touch /root/later; sync")
	i.do(t, "banger vm snapshot restore -f life then")
	i.want(t, readSigns+"; ls /root/later 2>/dev/null || echo as then", allSigns+"\nas then")
	i.do(t, "banger vm snapshot delete life then")
}

// testForks makes forks by fours, which run at the same time.
func (i inner) testForks(t *testing.T, count int) {
	var hosts, boots []string
	for made := 0; made < count; {
		n := min(4, count-made)
		var forks struct {
			Results []struct {
				Status *int   `json:"status"`
				Stdout string `json:"stdout"`
			} `json:"results"`
		}
		said := i.do(t, fmt.Sprintf("banger fork life --name fork-%d -n %d --rm --json -- sh -c '%s; hostname; cat /proc/sys/kernel/random/boot_id'", made, n, readSigns))
		if err := json.Unmarshal([]byte(said), &forks); err != nil || len(forks.Results) != n {
			t.Fatalf("%d forks said (%v) %s", n, err, said)
		}
		for _, r := range forks.Results {
			lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
			if r.Status == nil || *r.Status != 0 || len(lines) != 5 || strings.Join(lines[:3], "\n") != allSigns {
				t.Fatalf("a fork says %+v: %s", lines, said)
			}
			hosts, boots = append(hosts, lines[3]), append(boots, lines[4])
		}
		made += n
	}
	distinct(t, append(hosts, i.in(t, "hostname")), count+1)
	distinct(t, append(boots, i.in(t, "cat /proc/sys/kernel/random/boot_id")), count+1)
	i.want(t, readSigns, allSigns)
}

// testKilled kills the VMM, then the shim, which takes its VMM along. What was on the disk is
// there each time, and the rest is not.
func (i inner) testKilled(t *testing.T) {
	for _, c := range []struct {
		name string
		of   func(shown) int
	}{
		{"VMM", func(s shown) int { return s.VMMPID }},
		{"shim", func(s shown) int { return s.ShimPID }},
	} {
		before := i.show(t)
		i.do(t, fmt.Sprintf("kill -9 %d", c.of(before)))
		i.noProcess(t, before.VMMPID)
		i.noProcess(t, before.ShimPID)
		if s := i.show(t); s.State != "error" {
			t.Errorf("without its %s it is %s", c.name, s.State)
		}
		i.do(t, "banger start life")
		i.want(t, "cat /root/sign; test -e /run/sign || echo booted", "disk\nbooted")
		if now := i.show(t).BootID; now == before.BootID {
			t.Errorf("without its %s it was not booted: %s", c.name, now)
		}
	}
}

// testSeed has a VM with a work seed, which is one disk more than others have.
func (o *outer) testSeed(t *testing.T) {
	o.do(t, `banger image show seeded >/dev/null 2>&1 || {
		mkdir -p ~/seed && echo sown >~/seed/seed && /usr/sbin/mkfs.ext4 -q -d ~/seed ~/seed.ext4 8M &&
		banger image register --name seeded --rootfs ~/.local/state/banger/images/*/rootfs.ext4 --work-seed ~/seed.ext4
	}`)
	const look = "cat /root/seed; ls /sys/block | grep -c ^vd; findmnt -n -o FSTYPE /"
	vm := inner{o, "seeded"}
	o.do(t, "banger vm create --name seeded --image seeded --cold")
	vm.sign(t)
	vm.want(t, look, "sown\n4\noverlay")
	o.do(t, "banger vm suspend seeded && banger start seeded")
	vm.want(t, look+"; "+readSigns, "sown\n4\noverlay\n"+allSigns)
	o.do(t, "banger rm -f seeded")
}

// testFour has four VMs made at the same time, from the template that one before them left, and
// all run.
func (o *outer) testFour(t *testing.T) {
	o.do(t, "banger run --rm -- true")
	o.do(t, "timeout 500 sh -c 'until ls -d ~/.cache/banger/templates/[0-9a-f]*; do sleep 1; done' 2>/dev/null")
	o.do(t, "for i in 1 2 3 4; do banger vm create --name four-$i & made=\"$made $!\"; done; for m in $made; do wait $m || exit 1; done")
	var names []string
	for n := range 4 {
		vm := inner{o, fmt.Sprintf("four-%d", n+1)}
		if s := vm.show(t); s.State != "running" || s.VMMPID == 0 || s.Template == "" {
			t.Errorf("%s is %s, of template %q", vm.name, s.State, s.Template)
		}
		names = append(names, vm.in(t, "hostname"))
	}
	distinct(t, names, 4)
	o.do(t, "banger rm -f four-1 four-2 four-3 four-4")
}
