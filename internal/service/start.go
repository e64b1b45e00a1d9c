package service

import (
	"context"
	"net"
	"os"
	"slices"
	"strings"

	"banger"
)

// Runs says whether the unit at path has the daemon of this executable run, for the
// directories that an environment names: one that was edited may, and one that does not
// tell when the daemon is up does not.
func Runs(path, exe string, environ []string) bool {
	text, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	wanted, err := Unit(exe, environ)
	return err == nil && slices.Equal(telling(string(text)), telling(wanted))
}

// telling are a unit's lines that say what daemon it is, and that it tells when it is up.
// What PATH it has is no matter: a shell's is another than its neighbour's.
func telling(unit string) (lines []string) {
	for line := range strings.Lines(unit) {
		line = strings.TrimSpace(line)
		if line == typeLine || strings.HasPrefix(line, "ExecStart=") || strings.HasPrefix(line, `Environment="XDG_`) {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

// Start has systemd start the daemon, where the last one has ended, and returns when it is
// up. A unit that is not enabled is left alone.
func (m Manager) Start(ctx context.Context) error {
	if err := m.Reachable(ctx); err != nil {
		return err
	}
	if said, err := m.run(ctx, "systemctl", "--user", "is-enabled", Name); err != nil {
		return banger.Errorf(banger.Unavailable, "it is not enabled: %s", reason(said, err)).Hint("systemctl --user enable %s", Name)
	}
	// To systemd the one that has ended may run yet, and to start it would do nothing.
	return m.systemctl(ctx, []string{"restart", Name})
}

// Starting takes down whom a daemon that systemd started is to tell when it is up, and
// gives what tells it; what the daemon starts hears nothing of it.
func Starting() (up func()) {
	socket := os.Getenv("NOTIFY_SOCKET")
	os.Unsetenv("NOTIFY_SOCKET")
	return func() {
		if socket == "" {
			return
		}
		conn, err := net.Dial("unixgram", socket)
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Write([]byte("READY=1"))
	}
}
