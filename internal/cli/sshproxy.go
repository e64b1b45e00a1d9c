package cli

import (
	"context"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/api"
	"banger/internal/shim"
	"banger/internal/sshd"
	"banger/internal/sshkeys"
)

// newSSHProxy is what ssh runs instead of connecting to a network: it is the SSH
// server, on stdin and stdout.
func newSSHProxy(a *app) *cobra.Command {
	var agent bool
	cmd := &cobra.Command{
		Use: "ssh-proxy <vm>.vm", Hidden: true, Args: exactly("VM"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.proxySSH(cmd.Context(), args[0], agent) },
	}
	cmd.Flags().BoolVar(&agent, "agent", false, "let the client forward its key agent")
	return cmd
}

func (a *app) proxySSH(ctx context.Context, host string, agent bool) error {
	keys, sh, err := a.reachSSH(ctx, strings.TrimSuffix(host, ".vm"))
	if err != nil {
		return err
	}
	defer sh.Close()
	env, err := a.openProxies(ctx, keys.VM, sh)
	if err != nil {
		return err
	}
	server := &sshd.Server{
		VM: keys.VM.Name, HostKey: keys.HostKey, UserKey: keys.UserKey, Guest: sh.Conn(), UID: uint32(os.Getuid()), Agent: agent, Welcome: a.hush,
		Env: env, Notice: networkNotice(keys.VM),
	}
	return server.Serve(standardStreams{os.Stdin, os.Stdout})
}

// reachSSH connects to a VM that runs, or wakes it, until a signal says not to.
// Once connected, the daemon is not needed any more.
func (a *app) reachSSH(ctx context.Context, name string) (keys api.SSH, sh *shim.Client, err error) {
	ctx, stop := cancelOnSignal(ctx)
	defer stop()
	c, err := a.connect(ctx)
	if err != nil {
		return keys, nil, interrupted(ctx, err)
	}
	defer c.Close()
	if keys, err = c.SSH(ctx, name); err != nil {
		return keys, nil, interrupted(ctx, err)
	}
	if keys.VM.Name != name { // whose host key is not pinned by that name
		return keys, nil, banger.Errorf(banger.NotFound, "no VM is called %s", name).
			Hint("if it is this one: ssh %s", sshkeys.HostName(keys.VM.Name))
	}
	sh, err = a.reachVM(ctx, c, keys.VM)
	return keys, sh, interrupted(ctx, err)
}

// hush lets go of stderr: ssh may go into the background and leave it to others,
// who then would wait for us too. From then on sessions have one of their own.
func (a *app) hush() {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err == nil {
		_ = unix.Dup3(int(null.Fd()), int(os.Stderr.Fd()), 0)
		_ = null.Close()
	}
}

// standardStreams are read and written as one. The client knows by the end of
// the process that nothing more comes.
type standardStreams struct {
	io.Reader
	io.WriteCloser
}
