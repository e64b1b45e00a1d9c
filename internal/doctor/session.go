package doctor

import (
	"context"
	"os/exec"
	"strings"
	"time"
)

// session says whether VMs outlive the user's last logout: systemd may end what
// is left of a session, and ends its services unless the user lingers.
func (e *exam) session(ctx context.Context) {
	switch {
	case !exists(e.host.systemd):
		e.pass("linger", "systemd does not run here: VMs outlive a logout")
	case e.host.uid == 0:
		e.pass("linger", "root's VMs outlive a logout")
	case exists(e.host.lingers + "/" + e.host.user()):
		e.pass("linger", "%s lingers: VMs outlive a logout", e.host.user())
	case exists(e.dirs.Unit()):
		e.add("linger", Warn, "the service and its VMs end when "+e.host.user()+" logs out", "loginctl enable-linger")
	case e.host.kills(ctx):
		e.add("linger", Warn, "VMs end when "+e.host.user()+" logs out (KillUserProcesses is set)", "loginctl enable-linger && banger system install")
	default:
		e.pass("linger", "VMs outlive a logout")
	}
}

// killsUserProcesses asks logind whether it ends what is left of a session.
func killsUserProcesses(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	said, err := exec.CommandContext(ctx, "loginctl", "show-session", "--property=KillUserProcesses", "--value").Output()
	return err == nil && strings.TrimSpace(string(said)) == "yes"
}
