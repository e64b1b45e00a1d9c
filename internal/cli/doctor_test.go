package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestDoctorThatIsInterruptedRepairsNothing(t *testing.T) {
	home := t.TempDir()
	for _, name := range []string{"HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"} {
		t.Setenv(name, home)
	}
	open := filepath.Join(home, "banger") // to others, which --fix would change
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o755)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := &doctorOptions{app: &app{voice: newVoice()}, fix: true, force: true}
	if err := o.run(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	info, err := os.Stat(open)
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("it became %v, %v", info.Mode(), err)
	}
}
