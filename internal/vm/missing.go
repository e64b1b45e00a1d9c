package vm

import "banger"

// missing adds to the error of a start what can be done where something it needs
// is gone. An error that has a hint of its own is left as it is, but for a
// kernel's: a list of kernels does not bring one back.
func (m *Manager) missing(row banger.VM, image Image, err error) error {
	if banger.CodeOf(err) != banger.NotFound {
		return err
	}
	with := banger.Errorf(banger.NotFound, "%w", err)
	with.Hints = nil
	if _, gone := m.Kernels.Get(row.Spec.Kernel); gone != nil {
		return with.Hint("banger kernel pull --force %s brings it back unless there is a newer one by now", banger.DefaultKernel).
			Hint("else import it again, or banger vm delete %s", row.Name)
	}
	switch {
	case len(banger.HintsOf(err)) > 0:
		return err
	case !exists(image.RootfsPath), image.Seed != "" && !exists(image.WorkSeedPath):
		return with.Hint("banger doctor says what can be done about the image %s", image.Name)
	case !row.Runtime.Creating && !exists(m.Dirs.VM(row.ID).Disk()):
		return with.Hint("banger vm snapshot list %s shows what it can be restored to", row.Name).Hint("banger vm delete %s", row.Name)
	}
	return err
}
