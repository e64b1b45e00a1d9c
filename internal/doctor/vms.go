package doctor

import (
	"os"
	"path/filepath"

	"banger"
	"banger/internal/paths"
	"banger/internal/shim"
	"banger/internal/vm"
)

// entry judges what lies in the directory of VMs under a name.
func (s sight) entry(name string) []finding {
	dirs := s.exam.dirs
	path := filepath.Join(dirs.VMs(), name)
	id, unplaced := vm.Unplaced(name)
	switch {
	case path == dirs.VMTrash():
		return nil
	case unplaced:
		return []finding{orphan("the directory %s of a VM (%s) that was not finished", s.short(path), banger.ShortID(id))}
	case !banger.IsID(name):
		return []finding{stranger("%s", s.short(path)).remedy("move it elsewhere if you know what it is")}
	}
	return s.directory(name)
}

// directory judges a directory in the place of a VM's.
func (s sight) directory(id string) []finding {
	dir := s.exam.dirs.VM(id)
	row, known := s.rows[id]
	held, err := vm.ReadHeld(dir)
	switch {
	case err != nil && !known, err == nil && held.ID != id:
		return []finding{stranger("%s (it has no vm.json of its own)", s.short(string(dir))).remedy("move it elsewhere if you know what it is")}
	case err != nil:
		return []finding{damage(nil, "%s, the directory of %s, has no vm.json that can be read, so that banger does not touch it", s.short(string(dir)), row.Name).
			remedy("save what you need of %s, then banger vm delete %s", dir, row.Name)}
	case !known && s.readable:
		return []finding{orphan("%s, the directory of %s, has no row; it gets one again", s.short(string(dir)), held.Name)}
	}
	return s.inside(dir, held.Name)
}

// inside judges what lies in a VM's directory.
func (s sight) inside(dir paths.VM, name string) (all []finding) {
	_, alive, err := shim.Alive(dir)
	if err != nil {
		return []finding{damage(nil, "cannot tell whether %s runs: %v", name, err)}
	}
	if !alive && exists(dir.ShimSocket()) {
		all = append(all, orphan("%s, the socket of %s, which no shim has", s.short(dir.ShimSocket()), name))
	}
	if !alive && exists(dir.Restoring()) {
		all = append(all, orphan("a restore of %s that was not finished", name))
	}
	left, _ := vm.Unfinished(dir, alive)
	for _, path := range left {
		all = append(all, orphan("%s, which was not finished", s.short(path)))
	}
	if info, err := os.Stat(string(dir)); err == nil && info.Mode().Perm()&0o077 != 0 {
		all = append(all, finding{Row: exposed(string(dir), info.Mode())})
	}
	return all
}

// trashed judges what waits to be removed.
func (s sight) trashed(name string) []finding {
	path := filepath.Join(s.exam.dirs.VMTrash(), name)
	if !banger.IsID(name) {
		return []finding{stranger("%s", s.short(path))}
	}
	return []finding{orphan("%s, a deletion that was not finished", s.short(path))}
}

// row judges a row against what is there.
func (s sight) row(row banger.VM) []finding {
	dir := s.exam.dirs.VM(row.ID)
	switch {
	case row.Spec.Layout == 0: // another tool's
		return nil
	case row.Runtime.Creating:
		return []finding{orphan("the row of %s, whose creation was not finished", row.Name)}
	case !exists(string(dir)) && exists(filepath.Join(s.exam.dirs.VMTrash(), row.ID)):
		return nil // it goes with what lies there, of which trashed tells
	case !exists(string(dir)) && row.Spec.Ephemeral:
		return []finding{orphan("the row of %s, which was to go and has no directory", row.Name)}
	case !exists(string(dir)):
		return []finding{damage(&Fix{Action: DeleteVM, Subject: row.ID, Does: "delete the VM " + row.Name + ", whose disk is gone with its directory"},
			"%s, the directory of %s, is gone", s.short(string(dir)), row.Name)}
	}
	return s.state(row, dir)
}

// state judges what a row says of a VM's processes.
func (s sight) state(row banger.VM, dir paths.VM) []finding {
	id, alive, err := shim.Alive(dir)
	if err != nil {
		return nil // inside says so
	}
	switch {
	case row.State.Live() && !alive:
		return []finding{orphan("the row of %s says that it runs, and no shim has it", row.Name)}
	case !row.State.Live() && alive:
		return []finding{orphan("%s runs, and its row says that it is %s", row.Name, row.State)}
	case alive && !s.hasVMM(id):
		f := damage(nil, "the shim of %s (pid %d) has no VMM", row.Name, id.PID).remedy("banger vm kill %s", row.Name)
		f.passing = true
		return []finding{f}
	}
	return nil
}

// resident judges a process that stands in a VM's directory. One that is no shim
// and of no shim's session is somebody else's.
func (s sight) resident(r shim.Resident) []finding {
	dir := s.exam.dirs.VM(r.VM)
	lost, err := r.Orphan(dir)
	if err != nil {
		return nil
	}
	if lost {
		return []finding{orphan("%s (pid %d) of the VM %s, to which nothing leads", role(r), r.PID, s.called(r.VM))}
	}
	last, alive, err := shim.Alive(dir)
	if r.Shim && r.InPlace && err == nil && !(alive && last.PID == r.PID) {
		f := orphan("a shim (pid %d) that does not have its VM %s", r.PID, s.called(r.VM)).remedy("kill %d", r.PID)
		f.Fix, f.Remedies = nil, f.Remedies[1:]
		return []finding{f}
	}
	return nil
}

func role(r shim.Resident) string {
	if r.Shim {
		return "a shim"
	}
	return "a VMM"
}

// called is the name of a VM where one is known.
func (s sight) called(id string) string {
	if row, known := s.rows[id]; known {
		return row.Name
	}
	return banger.ShortID(id)
}

// hasVMM says whether a shim has a child at work.
func (s sight) hasVMM(id shim.Identity) bool {
	for _, r := range s.residents {
		if r.Session == id.PID && r.PID != id.PID {
			return true
		}
	}
	return false
}

// ofShim says whether a process is of the session of a shim that was seen.
func (s sight) ofShim(r shim.Resident) bool {
	for _, other := range s.residents {
		if other.Shim && r.Session == other.PID && r.PID != other.PID {
			return true
		}
	}
	return false
}
