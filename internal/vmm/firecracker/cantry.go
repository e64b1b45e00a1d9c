package firecracker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/vmm"
	"banger/internal/vmm/child"
)

// useQEMU is what helps where no card can be made.
const useQEMU = "set vmm = \"qemu\" in the configuration"

// CanMakeCards says why this host does not let this user make network cards. self is a program
// that knows CardProgram: some hosts let a user make a namespace and refuse him all in it, which
// only a trial shows. An empty one leaves the trial out.
func CanMakeCards(self string) error {
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return banger.Errorf(banger.Unavailable, "Firecracker's network cards need /dev/net/tun: %w", err).Hint("%s", tunHint(err))
	}
	_ = tun.Close()
	if !child.CanIsolate(unix.CLONE_NEWUSER | unix.CLONE_NEWNET) {
		return banger.Errorf(banger.Unavailable, "Firecracker's network cards need user namespaces, which this host does not let you make").
			Hint("sysctl user.max_user_namespaces kernel.unprivileged_userns_clone")
	}
	if self == "" {
		return nil
	}
	if err := tryCard(self); err != nil {
		return banger.Errorf(banger.Unavailable, "Firecracker's network cards need rights in a user namespace, which this host does not give you: %w", err).
			Hint("sysctl kernel.apparmor_restrict_unprivileged_userns")
	}
	return nil
}

func tunHint(err error) string {
	if errors.Is(err, os.ErrPermission) {
		return "sudo chmod 666 /dev/net/tun"
	}
	return "sudo modprobe tun"
}

const trialMTU = 1500

// tryCard makes a card that goes with the process that made it.
func tryCard(self string) error {
	text, err := json.Marshal(order{MTU: trialMTU, Socket: -1})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), findLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, CardProgram, string(text))
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  namespaces,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}},
		AmbientCaps: cardRights,
	}
	said, err := cmd.CombinedOutput()
	if why := bytes.TrimSpace(said); err != nil && len(why) > 0 {
		return errors.New(string(why[:min(len(why), vmm.MaxLogLine)]))
	}
	return err
}
