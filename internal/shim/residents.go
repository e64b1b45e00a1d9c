package shim

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"banger"
	"banger/internal/paths"
)

// Resident is a process that stands in a VM's directory, as shims and VMMs do.
type Resident struct {
	Identity
	Session int    // the session it is of; shims lead their own, VMMs are of their shim's
	VM      string // the name of the directory, which is the VM's id
	Shim    bool
	InPlace bool // the directory is where VMs are: neither in the trash nor deleted
	Gone    bool // the directory is deleted
}

// Residents lists the processes of this user that stand in directories below
// vms, from what the kernel says of them. Not all are ours: a person's shell may
// stand there too.
func Residents(vms string) ([]Resident, error) {
	boot, err := hostBoot()
	if err != nil {
		return nil, err
	}
	if real, err := filepath.EvalSymlinks(vms); err == nil {
		vms = real
	}
	names, err := namesIn("/proc")
	if err != nil {
		return nil, err
	}
	var all []Resident
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if r, ok := resident(pid, vms); ok {
			r.BootID = boot
			all = append(all, r)
		}
	}
	return all, nil
}

func namesIn(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// resident looks at one process, which may be gone meanwhile.
func resident(pid int, vms string) (r Resident, ok bool) {
	proc := "/proc/" + strconv.Itoa(pid)
	cwd, err := os.Readlink(proc + "/cwd")
	if err != nil {
		return r, false
	}
	path, gone := strings.CutSuffix(cwd, " (deleted)")
	below, ok := strings.CutPrefix(path, vms+"/")
	if !ok {
		return r, false
	}
	if r.Session, r.Start, err = sessionOf(pid); err != nil {
		return r, false
	}
	r.PID, r.VM, r.Gone = pid, filepath.Base(below), gone
	r.InPlace = !gone && !strings.Contains(below, "/") && banger.IsID(below)
	r.Shim = r.Session == pid && supervises(proc, r.VM)
	return r, banger.IsID(r.VM)
}

// supervises says whether a process was started as the shim of a VM.
func supervises(proc, id string) bool {
	line, err := os.ReadFile(proc + "/cmdline")
	args := bytes.Split(bytes.TrimSuffix(line, []byte{0}), []byte{0})
	return err == nil && len(args) == 3 && string(args[1]) == "shim" && filepath.Base(string(args[2])) == id
}

// sessionOf gives the session and the start time of a process.
func sessionOf(pid int) (session int, start uint64, err error) {
	fields, err := statFields(pid)
	if err != nil {
		return 0, 0, err
	}
	if session, err = strconv.Atoi(string(fields[3])); err != nil {
		return 0, 0, err
	}
	start, err = strconv.ParseUint(string(fields[19]), 10, 64)
	return session, start, err
}

// Orphan says whether nobody can reach a process that is certainly ours: a shim
// whose directory is deleted, or what is left of the session of a VM's last shim.
// The kernel gives the number of a session to nobody else as long as one of its
// processes lives.
func (r Resident) Orphan(dir paths.VM) (bool, error) {
	if r.Shim {
		return r.Gone, nil
	}
	if !r.InPlace {
		return false, nil
	}
	last, alive, err := Alive(dir)
	return !alive && last.BootID == r.BootID && last.PID == r.Session && r.Start >= last.Start, err
}

// KillOrphans kills the orphans below vms and returns when they are gone. A
// VMM ends with its shim; this is for the one that for some reason did not.
func KillOrphans(ctx context.Context, vms string) (killed []Resident, all error) {
	residents, err := Residents(vms)
	if err != nil {
		return nil, banger.Errorf(banger.Internal, "cannot look for processes: %w", err)
	}
	for _, r := range residents {
		orphan, err := r.Orphan(paths.VM(filepath.Join(vms, r.VM)))
		if err == nil && orphan {
			err = r.kill(ctx)
			killed = append(killed, r)
		}
		all = errors.Join(all, err)
	}
	return killed, all
}

// kill kills the process, if it is still the one that is meant, and returns when
// it is gone.
func (id Identity) kill(ctx context.Context) error {
	process, err := id.open()
	if err != nil || process == nil {
		return err
	}
	defer process.Close()
	if err := sendSignal(process, syscall.SIGKILL); err != nil {
		return err
	}
	return awaitEnd(ctx, process)
}
