package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"banger"
	"banger/internal/artifact"
)

// Manager is the user's systemd.
type Manager struct {
	Path    string                                                                 // of the unit
	Booted  string                                                                 // is there where systemd runs; empty for the usual place
	Command func(ctx context.Context, name string, args ...string) (string, error) // empty for real ones
}

// Status is how the service is.
type Status struct {
	Unit   string `json:"unit"`
	Author Author `json:"written_by"`
	State  string `json:"state"` // as systemctl is-active says; "unknown" where nobody can be asked
	PID    int    `json:"pid,omitempty"`
}

// Install writes the unit and has systemd start it, now and at each login. Done
// twice it is done once. A unit that somebody else wrote or edited is left alone.
func (m Manager) Install(ctx context.Context, unit string) error {
	if err := m.Installable(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(m.Path), 0o755); err != nil {
		return banger.Errorf(banger.Unavailable, "cannot make the directory of the unit: %w", err)
	}
	if err := artifact.WriteFile(m.Path, []byte(unit)); err != nil {
		return banger.Errorf(banger.Unavailable, "cannot write the unit: %w", err)
	}
	return m.systemctl(ctx, []string{"daemon-reload"}, []string{"enable", Name}, []string{"restart", Name})
}

// Installable says whether Install can begin, and why not.
func (m Manager) Installable(ctx context.Context) error {
	if err := m.Reachable(ctx); err != nil {
		return err
	}
	return m.refuseEdited()
}

// Restartable says whether there is a service to restart.
func (m Manager) Restartable(ctx context.Context) error {
	if err := m.Reachable(ctx); err != nil {
		return err // to install it would not help
	}
	author, err := Written(m.Path)
	if err == nil && author == Nobody {
		err = banger.Errorf(banger.NotFound, "it is not installed").Hint("banger system install")
	}
	return err
}

// Restart restarts the service; VMs go on.
func (m Manager) Restart(ctx context.Context) error {
	if err := m.Restartable(ctx); err != nil {
		return err
	}
	return m.systemctl(ctx, []string{"daemon-reload"}, []string{"restart", Name})
}

// Uninstall stops the service and removes the unit. VMs go on. Where there is no
// unit it does nothing, and says so.
func (m Manager) Uninstall(ctx context.Context) (was bool, err error) {
	author, err := Written(m.Path)
	if err != nil || author == Nobody {
		return false, err
	}
	if err := m.refuseEdited(); err != nil {
		return true, err
	}
	// Without a manager there is nothing that it could stop.
	reachable := m.Reachable(ctx) == nil
	if reachable {
		if err := m.systemctl(ctx, []string{"disable", "--now", Name}); err != nil {
			return true, err
		}
	}
	if err := os.Remove(m.Path); err != nil {
		return true, banger.Errorf(banger.Unavailable, "cannot remove the unit: %w", err)
	}
	if reachable {
		err = m.systemctl(ctx, []string{"daemon-reload"})
		// One that failed once is remembered as such, unit or not.
		_, _ = m.run(ctx, "systemctl", "--user", "reset-failed", Name)
	}
	return true, err
}

// Status looks at the unit, and asks systemd where it runs.
func (m Manager) Status(ctx context.Context) (s Status, err error) {
	s = Status{Unit: m.Path, State: "unknown"}
	if s.Author, err = Written(m.Path); err != nil || m.Reachable(ctx) != nil {
		return s, err
	}
	// It exits with other than 0 for what is not active.
	if said, _ := m.run(ctx, "systemctl", "--user", "is-active", Name); strings.TrimSpace(said) != "" {
		s.State = strings.TrimSpace(said)
	}
	if said, err := m.run(ctx, "systemctl", "--user", "show", "--property=MainPID", "--value", Name); err == nil {
		s.PID, _ = strconv.Atoi(strings.TrimSpace(said))
	}
	return s, nil
}

func (m Manager) refuseEdited() error {
	author, err := Written(m.Path)
	if err != nil || author != Somebody {
		return err
	}
	return banger.Errorf(banger.Conflict, "%s was written or changed by hand, and is left alone", m.Path).
		Hint("put changes into a file of their own with: systemctl --user edit %s", Name).
		Hint("then move it away: mv %s %s.old", m.Path, m.Path)
}

// Reachable says whether the user has a systemd, and why not.
func (m Manager) Reachable(ctx context.Context) error {
	booted := m.Booted
	if booted == "" {
		booted = "/run/systemd/system"
	}
	if _, err := os.Stat(booted); err != nil {
		return banger.Errorf(banger.Unavailable, "systemd does not run here").
			Hint("nothing needs to be installed: banger ps, or any other command, starts the daemon")
	}
	if said, err := m.run(ctx, "systemctl", "--user", "show", "--property=Version"); err != nil {
		return banger.Errorf(banger.Unavailable, "the systemd of this user does not answer: %s", reason(said, err)).
			Hint("log in as this user, not with su or sudo, or first: sudo loginctl enable-linger %d && export XDG_RUNTIME_DIR=/run/user/%d", os.Getuid(), os.Getuid())
	}
	return nil
}

// systemctl runs commands one after the other.
func (m Manager) systemctl(ctx context.Context, commands ...[]string) error {
	for _, args := range commands {
		if said, err := m.run(ctx, "systemctl", append([]string{"--user"}, args...)...); err != nil {
			return banger.Errorf(banger.Unavailable, "systemctl --user %s failed: %s", strings.Join(args, " "), reason(said, err)).
				Hint("journalctl --user --unit %s --lines 20", Name)
		}
	}
	return nil
}

func (m Manager) run(ctx context.Context, name string, args ...string) (string, error) {
	if m.Command != nil {
		return m.Command(ctx, name, args...)
	}
	return command(ctx, name, args...)
}

// command runs a program and gives what it said: its output, or where it fails
// its complaint.
func command(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=")
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil && complaint.Len() > 0 {
		return complaint.String(), err
	}
	return string(out), err
}

// reason is the last line of a complaint, or the error where there is none.
func reason(said string, err error) string {
	said = strings.TrimSpace(said)
	if said == "" || errors.Is(err, exec.ErrNotFound) {
		return err.Error()
	}
	return said[strings.LastIndexByte(said, '\n')+1:]
}

// Holds says whether a process is the service's.
func Holds(pid int) bool {
	group, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return err == nil && inside(string(group))
}

func inside(cgroups string) bool {
	for line := range strings.Lines(cgroups) {
		if strings.HasSuffix(strings.TrimSpace(line), "/"+Name) {
			return true
		}
	}
	return false
}

// Scope moves processes out of the service into a scope of their own, which ends
// with them.
func (m Manager) Scope(ctx context.Context, name, description string, pids []int) error {
	args := []string{
		"--user", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager",
		"StartTransientUnit", "ssa(sv)a(sa(sv))", name + ".scope", "fail", "2",
		"Description", "s", description, "PIDs", "au", strconv.Itoa(len(pids)),
	}
	for _, pid := range pids {
		args = append(args, strconv.Itoa(pid))
	}
	said, err := m.run(ctx, "busctl", append(args, "0")...)
	if err != nil {
		return fmt.Errorf("cannot make the scope %s: %s", name, reason(said, err))
	}
	return nil
}
