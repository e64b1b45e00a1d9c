// Package sshconfig is what banger tells the host's ssh: the options that reach
// a VM, and the place in the user's configuration where they stand.
//
// It knows ssh's configuration language, and nothing of VMs or of the protocol.
package sshconfig

import (
	"os/exec"
	"strings"
)

// Client is the host's ssh.
func Client() (path string, err error) { return exec.LookPath("ssh") }

// Place is what the options are made from.
type Place struct {
	Exe        string   // banger
	Env        []string // KEY=VALUE that it needs to find its state
	KnownHosts string
	Identity   string
}

// option is one line of an ssh configuration.
type option struct{ key, value string }

// options are what every connection to a VM has. Nothing is asked of the user,
// nothing learned on first use, and no name is looked up.
func (p Place) options(proxyFlags ...string) []option {
	return []option{
		{"ProxyCommand", p.proxy(proxyFlags)},
		{"UserKnownHostsFile", quote(p.KnownHosts)},
		{"GlobalKnownHostsFile", "/dev/null"},
		{"StrictHostKeyChecking", "yes"},
		{"UpdateHostKeys", "no"},
		{"HostKeyAlgorithms", "ssh-ed25519"},
		{"IdentityFile", quote(p.Identity)},
		{"IdentitiesOnly", "yes"},
		{"PreferredAuthentications", "publickey"},
		{"ForwardAgent", "no"},
		{"Compression", "no"},
		// The cheapest of each kind that all have: the wire is a pipe.
		{"KexAlgorithms", "curve25519-sha256"},
		{"Ciphers", "aes128-gcm@openssh.com,chacha20-poly1305@openssh.com"},
	}
}

// proxy is the command that ssh speaks to instead of a network. The shell that
// starts it must take a name for nothing else, whoever chose it: Block sees to
// the one character that ends these quotes.
func (p Place) proxy(flags []string) string {
	var all []string
	if len(p.Env) > 0 {
		all = append([]string{"env"}, p.Env...)
	}
	all = append(all, p.Exe, "ssh-proxy")
	for i, w := range all {
		all[i] = strings.ReplaceAll(shellQuote(w), "%", "%%")
	}
	return strings.Join(append(append(all, flags...), "'%h'"), " ")
}

// Block is the part of a configuration that makes NAME.vm reach the VM of that
// name.
func (p Place) Block() string {
	var b strings.Builder
	b.WriteString("# Made by banger ssh-config.\nHost *.vm \"!*'*\"\n    User root\n")
	for _, o := range p.options() {
		b.WriteString("    " + o.key + " " + o.value + "\n")
	}
	return b.String()
}

// Args are the arguments of ssh for one VM, whose key is pinned as alias.
func (p Place) Args(user, host, alias string, agent bool) []string {
	var flags []string
	if agent {
		flags = []string{"--agent"}
	}
	args := []string{"-l", user, "-o", "HostKeyAlias=" + alias}
	for _, o := range p.options(flags...) {
		if o.key == "ForwardAgent" && agent {
			o.value = "yes"
		}
		args = append(args, "-o", o.key+"="+o.value)
	}
	return append(args, host)
}

// quote writes a file name so that ssh takes it as it is.
func quote(path string) string {
	return `"` + strings.ReplaceAll(path, "%", "%%") + `"`
}

func shellQuote(w string) string {
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}
