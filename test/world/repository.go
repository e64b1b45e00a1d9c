package world

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Repository makes a repository with one commit, of files of some lines each.
func Repository(dir string, files int) error {
	for i := range files {
		sub := filepath.Join(dir, fmt.Sprintf("d%d", i%100))
		content := bytes.Repeat(fmt.Appendf(nil, "a line of the file %d\n", i), 1+i%80)
		err := errors.Join(os.MkdirAll(sub, 0o755), os.WriteFile(filepath.Join(sub, fmt.Sprint(i)), content, 0o644))
		if err != nil {
			return err
		}
	}
	cmd := exec.Command("sh", "-ec", "git init -q; git add -A; git -c user.name=bench -c user.email=bench@localhost commit -qm files")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make a repository: %w: %s", err, out)
	}
	return nil
}
