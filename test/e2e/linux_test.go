package e2e

import (
	"strings"
	"testing"
)

// look is a thing to look at inside a guest: a shell script, and all it is to
// print.
type look struct{ what, script, want string }

// check looks at many things with one command, since each command costs some
// hundred milliseconds.
func (w home) check(t *testing.T, vm string, looks []look) {
	t.Helper()
	const end = "=== end of a look ===\n"
	var script strings.Builder
	for _, l := range looks {
		script.WriteString("(\n" + l.script + "\n) 2>&1\nprintf '" + strings.ReplaceAll(end, "\n", `\n`) + "'\n")
	}
	r := w.Banger("exec", vm, "--", "bash", "-c", script.String())
	got := strings.Split(r.Stdout, end)
	if r.Status != 0 || len(got) != len(looks)+1 {
		t.Fatalf("%d looks, %d answers, status %d\n%s%s", len(looks), len(got)-1, r.Status, r.Stdout, r.Stderr)
	}
	for i, l := range looks {
		if got := strings.TrimSpace(got[i]); got != l.want {
			t.Errorf("%s: got\n%s\nwant\n%s", l.what, got, l.want)
		}
	}
}

func TestGuestIsAUsualLinux(t *testing.T) {
	shared.start(t, "usual")
	shared.check(t, "usual", devices)
	shared.check(t, "usual", mounts)
	shared.check(t, "usual", processes)
	shared.check(t, "usual", network)
	shared.check(t, "usual", modules)
}

var devices = []look{
	{"device nodes", `cd /dev; stat -c '%n %F %a %t:%T' null zero full random urandom tty ptmx net/tun fuse`, strings.TrimSpace(`
null character special file 666 1:3
zero character special file 666 1:5
full character special file 666 1:7
random character special file 666 1:8
urandom character special file 666 1:9
tty character special file 666 5:0
ptmx character special file 666 5:2
net/tun character special file 666 a:c8
fuse character special file 666 a:e5`)},
	{"links to descriptors", `echo in | cat /dev/stdin; echo out >/dev/stdout; echo err >/dev/stderr; echo fd | cat /dev/fd/0`, "in\nout\nerr\nfd"},
	{"shared memory and queues", `stat -c %a /dev/shm; findmnt -no FSTYPE /dev/shm; findmnt -no FSTYPE /dev/mqueue`, "1777\ntmpfs\nmqueue"},
	{"ptys", `findmnt -no FSTYPE /dev/pts; python3 -c 'import os; os.openpty(); print("pty")'`, "devpts\npty"},
}

var mounts = []look{
	{"propagation of /", `findmnt -no PROPAGATION /`, "shared"},
	{"modes of what everybody writes", `stat -c '%n %a' /tmp /var/tmp /run /run/lock`, "/tmp 1777\n/var/tmp 1777\n/run 755\n/run/lock 1777"},
	{"an empty /tmp", `ls -A /tmp`, ""},
	{"cgroups", `findmnt -no FSTYPE /sys/fs/cgroup; cd /sys/fs/cgroup; cmp cgroup.controllers cgroup.subtree_control
for c in cpuset cpu io memory pids; do grep -qw $c commands/cgroup.controllers || echo no $c; done; cat /proc/self/cgroup`, "cgroup2\n0::/commands"},
	// A container engine's own overlay needs a plain file system above.
	{"engines' directories", `findmnt -no FSTYPE /var/lib/docker; findmnt -no FSTYPE /var/lib/containerd; findmnt -no FSTYPE /var/lib/containers
cd /var/lib/docker; mkdir l u w m && mount -t overlay -o lowerdir=l,upperdir=u,workdir=w none m && touch m/f && umount m && ls u; rm -r l u w m`,
		"ext4\next4\next4\nf"},
}

var processes = []look{
	{"limits", `ulimit -Sn; ulimit -Hn`, "1024\n524288"},
	{"timers as fine as usual", `cat /proc/self/timerslack_ns`, "50000"},
	{"who is killed for memory", `cat /proc/1/oom_score_adj /proc/self/oom_score_adj`, "-1000\n0"},
	{"umask", `umask`, "0022"},
	{"environment", `echo "$HOME $USER $LANG $IS_SANDBOX $PATH"; pwd`,
		"/root root C.UTF-8 1 /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n/root"},
	{"signals are as at birth", `grep -E 'Sig(Blk|Ign)' /proc/self/status`, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000"},
	{"orphans are reaped", `for i in $(seq 30); do (sh -c 'sleep 0.01 & exec true' &); done; wait
for try in $(seq 200); do left=$(grep -l '^State:.*[ZS]' $(grep -lE '^Name:.(sleep|true)$' /proc/[0-9]*/status 2>/dev/null) /dev/null 2>/dev/null)
test -z "$left" && break; sleep 0.05; done; echo "left: $left"`, "left:"},
}

var network = []look{
	{"loopback", `python3 - <<'END'
import socket
for family, host in (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET, "localhost"):
    s = socket.create_server((host, 0), family=family)
    c = socket.create_connection(s.getsockname()[:2])
    s.accept()[0].send(b"heard")
    print(host, c.recv(5).decode())
END`, "127.0.0.1 heard\n::1 heard\nlocalhost heard"},
	{"names", `hostname; cat /etc/hostname; getent hosts $(hostname) | grep -c usual`,
		"usual\nusual\n1"},
	{"/etc/resolv.conf", `stat -c %F /etc/resolv.conf`, "regular file"},
}

// The kernel asks for a module when something is used that needs it.
var modules = []look{
	{"the agent is modprobe", `cat /proc/sys/kernel/modprobe; modprobe -q no-such-module; echo $?`, "/run/initramfs/banger/agent\n1"},
	{"a file system", `grep -cw squashfs /proc/filesystems; mount -t squashfs /dev/null /mnt 2>/dev/null; grep -cw squashfs /proc/filesystems`, "0\n1"},
	{"a kind of link", `test -d /sys/module/dummy; echo $?; ip link add d0 type dummy && test -d /sys/module/dummy; echo $?; ip link del d0`, "1\n0"},
	{"a device", `: </dev/fuse && test -d /sys/module/fuse; echo $?; : </dev/net/tun && test -d /sys/module/tun; echo $?`, "0\n0"},
}

func TestCommandRunsAsWhoWhereAndWithWhatIsAsked(t *testing.T) {
	shared.start(t, "asked")
	got := shared.must(t, "exec", "--user", "nobody", "-w", "/usr/share", "-e", "A=b c", "asked", "--",
		"sh", "-c", `id -un; id -gn; pwd; echo "$A $USER $HOME"; cat /proc/self/oom_score_adj; touch /root/x 2>/dev/null || echo refused`)
	if want := "nobody\nnogroup\n/usr/share\nb c nobody /nonexistent\n0\nrefused"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if r := shared.Banger("exec", "-w", "/no/such", "asked", "--", "pwd"); r.Status != 126 || !strings.Contains(r.Stderr, "/no/such") {
		t.Errorf("status %d, %s", r.Status, r.Stderr)
	}
}

func TestOnlyWhatIsMeantToLastOutlivesAStop(t *testing.T) {
	shared.start(t, "lasting")
	shared.check(t, "lasting", []look{{"what is left behind", `
mkdir -p /tmp/dir /run/dir; touch /tmp/dir/file /run/dir/file /dev/shm/file; chmod 700 /tmp
echo nameserver 192.0.2.1 >/etc/resolv.conf; echo 192.0.2.2 mine >>/etc/hosts; echo kept >/root/file; mkdir /var/lib/docker/kept`, ""}})
	shared.must(t, "stop", "lasting")
	shared.must(t, "start", "lasting")
	shared.check(t, "lasting", []look{
		{"/tmp", `ls -A /tmp; stat -c %a /tmp`, "1777"},
		{"/run", `ls -d /run/dir; ls -A /dev/shm`, "ls: cannot access '/run/dir': No such file or directory"},
		{"an edited /etc/resolv.conf", `cat /etc/resolv.conf`, "nameserver 192.0.2.1"},
		{"a line of /etc/hosts", `getent hosts mine | tr -s ' '; grep -c 'this VM' /etc/hosts`, "192.0.2.2 mine\n1"},
		{"files", `cat /root/file; ls /var/lib/docker`, "kept\nkept"},
	})
}
