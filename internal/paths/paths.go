// Package paths names every file and directory banger uses, in one place.
//
// It computes names from the environment and touches nothing: making,
// locking and removing belong to the rooms that own the files.
package paths

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
)

// Dirs holds the roots of one banger installation. State identifies it: there
// is one daemon per state directory.
type Dirs struct {
	State   string // $XDG_STATE_HOME/banger: everything worth keeping
	Cache   string // $XDG_CACHE_HOME/banger: may be deleted at any time
	Config  string // $XDG_CONFIG_HOME/banger
	Runtime string // directory of the daemon's socket
}

// FromEnv reads the roots from the XDG variables, which must be absolute, and
// $HOME.
func FromEnv() (Dirs, error) {
	home, err := os.UserHomeDir()
	if err != nil || !filepath.IsAbs(home) {
		return Dirs{}, fmt.Errorf("cannot find the home directory: $HOME is not set to an absolute path")
	}
	d := Dirs{
		State:  filepath.Join(xdg("XDG_STATE_HOME", filepath.Join(home, ".local", "state")), "banger"),
		Cache:  filepath.Join(xdg("XDG_CACHE_HOME", filepath.Join(home, ".cache")), "banger"),
		Config: filepath.Join(xdg("XDG_CONFIG_HOME", filepath.Join(home, ".config")), "banger"),
	}
	if run := xdg("XDG_RUNTIME_DIR", ""); run != "" {
		d.Runtime = filepath.Join(run, "banger")
	} else {
		// Without a session there is no private runtime directory: make one
		// of our own, checked by the daemon for owner, mode and symlinks.
		d.Runtime = filepath.Join(os.TempDir(), fmt.Sprintf("banger-%d", os.Getuid()))
	}
	return d, nil
}

// Env lists the variables that move the roots, for a process that may be started
// without them. The runtime directory does not count: a daemon that runs is found
// by its lock.
func Env() (env []string) {
	for _, name := range []string{"XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"} {
		if v := xdg(name, ""); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// xdg follows the base directory specification: a relative value is ignored.
func xdg(name, fallback string) string {
	if v := os.Getenv(name); filepath.IsAbs(v) {
		return v
	}
	return fallback
}

// Database is the SQLite file.
func (d Dirs) Database() string { return filepath.Join(d.State, "state.db") }

// DaemonLock is held by the daemon while it lives; its text names the socket.
func (d Dirs) DaemonLock() string { return filepath.Join(d.State, "daemon.lock") }

// DaemonStart is locked by whoever starts a daemon, until it answers.
func (d Dirs) DaemonStart() string { return filepath.Join(d.State, "daemon.start") }

// DaemonLog is the daemon's JSON log.
func (d Dirs) DaemonLog() string { return filepath.Join(d.State, "daemon.log") }

// Socket is the daemon's socket, named after the state directory so that two
// state directories of one user do not meet.
func (d Dirs) Socket() string {
	sum := sha256.Sum256([]byte(d.State))
	return filepath.Join(d.Runtime, "daemon-"+hex.EncodeToString(sum[:6])+".sock")
}

// ConfigFile is the configuration.
func (d Dirs) ConfigFile() string { return filepath.Join(d.Config, "config.toml") }

// Unit is the unit of systemd's user manager that runs the daemon.
func (d Dirs) Unit() string {
	return filepath.Join(filepath.Dir(d.Config), "systemd", "user", "banger.service")
}

// Images holds a directory per managed image.
func (d Dirs) Images() string { return filepath.Join(d.State, "images") }

// Image is one managed image's directory.
func (d Dirs) Image(id string) string { return filepath.Join(d.Images(), id) }

// Kernels holds kernels by content and the names that point at them.
func (d Dirs) Kernels() string { return filepath.Join(d.State, "kernels") }

// Keys holds the user's key for VMs and the pins of the VMs' own.
func (d Dirs) Keys() string { return filepath.Join(d.State, "keys") }

// UserKey is the private key that VMs let in, unless the configuration names
// another; its public half has ".pub" appended.
func (d Dirs) UserKey() string { return filepath.Join(d.Keys(), "id_ed25519") }

// KnownHosts pins the host keys of VMs, for ssh to read.
func (d Dirs) KnownHosts() string { return filepath.Join(d.Keys(), "known_hosts") }

// SSHConfig is what the user's ssh configuration includes.
func (d Dirs) SSHConfig() string { return filepath.Join(d.Keys(), "ssh_config") }

// VMs holds a directory per VM.
func (d Dirs) VMs() string { return filepath.Join(d.State, "vms") }

// VMTrash and ImageTrash are where directories are renamed to before they are
// removed, so that a half-removed one is never seen in its place. They are
// inside, because what is around may be another file system.
func (d Dirs) VMTrash() string    { return filepath.Join(d.VMs(), ".trash") }
func (d Dirs) ImageTrash() string { return filepath.Join(d.Images(), ".trash") }

// VM is one VM's directory.
func (d Dirs) VM(id string) VM { return VM(filepath.Join(d.VMs(), id)) }

// Downloads caches packages on their way into images and kernels.
func (d Dirs) Downloads() string { return filepath.Join(d.Cache, "downloads") }

// Exports holds what guests sent, as long as it is looked at.
func (d Dirs) Exports() string { return filepath.Join(d.Cache, "exports") }

// Applies holds a journal for each patch that is being applied to a tree.
func (d Dirs) Applies() string { return filepath.Join(d.State, "applies") }

// OCI caches layers of images by digest.
func (d Dirs) OCI() string { return filepath.Join(d.Cache, "oci") }

// Templates holds a directory per saved machine that VMs are forked from.
func (d Dirs) Templates() string { return filepath.Join(d.Cache, "templates") }

// EmptyDisk is the cached empty writable file system that new disks of this
// size are copied from.
func (d Dirs) EmptyDisk(bytes int64) string {
	return filepath.Join(d.Cache, fmt.Sprintf("empty-%d.ext4", bytes))
}

// AccelVerdict caches whether KVM works, once per boot of the host.
func (d Dirs) AccelVerdict() string { return filepath.Join(d.Cache, "accel.json") }

// VM is the directory of one VM; its methods name the files inside.
type VM string

// Record is vm.json: enough to rebuild the VM's row. A directory without one
// is not ours and is never removed.
func (v VM) Record() string { return filepath.Join(string(v), "vm.json") }

// Disk is the writable ext4 file.
func (v VM) Disk() string { return filepath.Join(string(v), "disk.ext4") }

// Seed is a tar stream of the user's files that the guest gets when it is first
// up. Then it goes.
func (v VM) Seed() string { return filepath.Join(string(v), "seed.tar") }

// HostKey is the private key by which ssh knows the VM. It is made when it is
// first needed.
func (v VM) HostKey() string { return filepath.Join(string(v), "ssh_host_ed25519_key") }

// Suspended holds the saved machine of a VM that is suspended: record.json,
// memory, state.
func (v VM) Suspended() string { return filepath.Join(string(v), "suspended") }

// Snapshots holds a directory per snapshot.
func (v VM) Snapshots() string { return filepath.Join(string(v), "snapshots") }

// Snapshot is one snapshot's directory.
func (v VM) Snapshot(id string) string { return filepath.Join(v.Snapshots(), id) }

// Restoring holds a disk that is about to take the place of the VM's: it was
// decided, and not finished yet.
func (v VM) Restoring() string { return filepath.Join(string(v), "restoring") }

// Scratch is where something is made that then gets another name, or is only
// needed for a while. What a crash leaves of it may be removed.
func (v VM) Scratch(name string) string { return filepath.Join(string(v), ScratchPrefix+name) }

// ScratchPrefix begins the names of what is not finished.
const ScratchPrefix = ".tmp-"

// ShimSocket is the shim's control socket. Dial and bind it through
// /proc/self/fd: its path may be longer than a socket address holds.
func (v VM) ShimSocket() string { return filepath.Join(string(v), "shim.sock") }

// ShimLock is locked by the shim while it lives.
func (v VM) ShimLock() string { return filepath.Join(string(v), "shim.lock") }

// ShimLog is the shim's log.
func (v VM) ShimLog() string { return filepath.Join(string(v), "shim.log") }

// Launch is launch.json: what the shim is to start.
func (v VM) Launch() string { return filepath.Join(string(v), "launch.json") }

// Exit is exit.json: how the last run ended, written by the shim as its last
// act.
func (v VM) Exit() string { return filepath.Join(string(v), "exit.json") }

// Network is what earlier shims knew of what the guest reached and was refused.
func (v VM) Network() string { return filepath.Join(string(v), "network.json") }

// Console is the bounded console log; its predecessor has ".1" appended.
func (v VM) Console() string { return filepath.Join(string(v), "console.log") }
