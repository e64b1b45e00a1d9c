// Package service is banger as a service of the user's systemd: the unit that
// runs the daemon, and the scopes that VMs are put in where it does.
//
// It knows systemd and nothing of VMs.
package service

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"

	"banger"
)

// Name is the unit's.
const Name = "banger.service"

// mark begins the unit's first line; the digest of all that follows completes it,
// so that a unit somebody edited is told from one that only banger wrote.
const mark = "# Written by banger system install. sha256:"

// typeLine has systemd wait until the daemon says that it is up. After a crash it looks at
// every VM first, which may take its time.
const typeLine = "Type=notify"

// unitText is the unit without its first line.
//
// KillMode leaves shims and VMMs alone when the daemon ends. They inherit what is
// forbidden here. So user namespaces, in which VMMs are confined, are not, and
// neither is memory that is written and then run, which emulation needs. A view of
// the host's files of its own is not there: in a user's unit that takes a user
// namespace around everything, in which root is nobody. Without new privileges
// newuidmap does not work, with which images of Debian are built; see package image.
const unitText = `
[Unit]
Description=banger, microVMs of this user
StartLimitIntervalSec=60
StartLimitBurst=5

[Service]
` + typeLine + `
TimeoutStartSec=infinity
ExecStart=%s daemon run
%sRestart=on-failure
RestartSec=2
KillMode=process
TimeoutStopSec=30
OOMPolicy=continue
UMask=0077
LimitCORE=0
KeyringMode=private
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=user mnt net pid ipc uts
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @debug @module @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM

[Install]
WantedBy=default.target
`

// passed are the variables that say where banger's files are, and where programs
// are. The user's manager may have others than the shell that installs.
var passed = []string{"PATH", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"}

// Unit is the text of the unit that runs this executable, in an environment of
// KEY=VALUE, the last of which count.
func Unit(exe string, environ []string) (string, error) {
	if !strings.HasPrefix(exe, "/") || strings.ContainsFunc(exe, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", banger.Errorf(banger.Conflict, "systemd cannot run the path %q", exe).
			Hint("make install, or copy banger to a path without such characters")
	}
	var env strings.Builder
	for _, name := range passed {
		for _, set := range slices.Backward(environ) {
			if value, ok := strings.CutPrefix(set, name+"="); ok {
				if value != "" {
					fmt.Fprintf(&env, "Environment=%s\n", quoted(name+"="+value))
				}
				break
			}
		}
	}
	body := fmt.Sprintf(unitText, quoted(exe), &env)
	return mark + digest(body) + "\n" + body, nil
}

func digest(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:8])
}

// quoted writes a word the way systemd reads it back.
func quoted(word string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "\n", `\n`).Replace(word) + `"`
}

// Author says who wrote a unit.
type Author string

// Who may have written it.
const (
	Nobody   Author = "nobody" // it is not there
	Ours     Author = "banger"
	Somebody Author = "somebody" // else, or changed what we wrote
)

// Written says who wrote the unit at path.
func Written(path string) (Author, error) {
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return Nobody, nil
	}
	if err != nil {
		return Somebody, banger.Errorf(banger.Unavailable, "cannot read the unit: %w", err)
	}
	first, body, _ := strings.Cut(string(text), "\n")
	if first == mark+digest(body) {
		return Ours, nil
	}
	return Somebody, nil
}
