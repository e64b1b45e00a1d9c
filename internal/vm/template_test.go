package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/config"
	"banger/internal/shim"
	"banger/internal/template"
	"banger/internal/vmm"
)

// warmWorld is a world with a VMM that can restore, and a template that fits
// every VM.
func warmWorld(t *testing.T) *world {
	w := newWorld(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w.Choose = func(context.Context, config.Config, banger.Kernel) (Machine, error) {
		return Machine{Driver: "fake", Binary: self, Accel: vmm.TCG, Features: vmm.Features{Snapshots: true}}, nil
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "disk.ext4"), []byte("of the template"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.templates.fork = func() (*template.Fork, error) {
		memory, err := os.Open(os.DevNull)
		return &template.Fork{Template: template.Template{ID: "t1", Dir: dir, Token: []byte("token")}, Memory: memory}, err
	}
	// What a shim of a fork says, unless it could not restore.
	w.shims.guest = func(s *fakeShim) {
		s.update(func() {
			s.status.State, s.status.ReadyAt = shim.Running, time.Now()
			if s.launch.Restore != nil {
				s.status.Template = s.launch.Restore.Template
			}
		})
	}
	return w
}

func (w *world) diskOf(t *testing.T, id string) string {
	t.Helper()
	f, err := os.Open(w.Dirs.VM(id).Disk())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head := make([]byte, 15)
	_, _ = f.ReadAt(head, 0)
	return string(head)
}

func TestNewVMBeginsAsAForkWithTheTemplatesDisk(t *testing.T) {
	w := warmWorld(t)
	v, err := w.Create(t.Context(), Create{Name: "box", DiskBytes: 2 * banger.GiB, Start: true, Wait: true}, quiet{})
	if err != nil {
		t.Fatal(err)
	}
	launch := w.shims.of(w.Dirs.VM(v.ID)).launch
	if launch.Restore == nil || launch.Restore.Template != "t1" || string(launch.Restore.Token) != "token" || v.Template != "t1" {
		t.Fatalf("launched with %+v, shown as a fork of %q", launch.Restore, v.Template)
	}
	info, err := os.Stat(w.Dirs.VM(v.ID).Disk())
	if err != nil || info.Size() != 2*banger.GiB || w.diskOf(t, v.ID) != "of the template" {
		t.Errorf("its disk: %v %v", info.Size(), err)
	}
	if launch.Setup.DiskBytes != 2*banger.GiB {
		t.Errorf("the guest is to wait for %d bytes", launch.Setup.DiskBytes)
	}
}

func TestOnlyTheFirstStartIsAFork(t *testing.T) {
	w := warmWorld(t)
	v, err := w.Create(t.Context(), Create{Name: "box"}, quiet{})
	if err != nil || w.diskOf(t, v.ID) == "of the template" {
		t.Fatal("a VM that does not run has a template's disk", err)
	}
	for i, want := range []bool{true, false} {
		if _, err := w.Start(t.Context(), v.ID, false, true, quiet{}); err != nil {
			t.Fatal(err)
		}
		if got := w.shims.of(w.Dirs.VM(v.ID)).launch.Restore != nil; got != want {
			t.Errorf("start %d is a fork: %v", i+1, got)
		}
		if _, err := w.Stop(t.Context(), v.ID, time.Second, quiet{}); err != nil {
			t.Fatal(err)
		}
	}
	if w.diskOf(t, v.ID) != "of the template" {
		t.Error("the second start has another disk")
	}
}

func TestFirstStartBootsWhereItsTemplateIsRemovedMeanwhile(t *testing.T) {
	for name, start := range map[string]bool{"created": true, "started": false} {
		w := warmWorld(t)
		open := w.templates.fork
		w.templates.fork = func() (*template.Fork, error) {
			fork, err := open()
			return fork, errors.Join(err, os.RemoveAll(fork.Dir))
		}
		v, err := w.Create(t.Context(), Create{Name: "box", Start: start, Wait: start}, quiet{})
		if err == nil && !start {
			v, err = w.Start(t.Context(), v.ID, false, true, quiet{})
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		info, err := os.Stat(w.Dirs.VM(v.ID).Disk())
		if err != nil || info.Size() != banger.GiB || w.shims.of(w.Dirs.VM(v.ID)).launch.Restore != nil || v.Template != "" {
			t.Errorf("%s: its disk is %v, %v; a fork of %q", name, info, err, v.Template)
		}
		w.close()
		if len(w.templates.wanted) != 1 {
			t.Errorf("%s: it wants %d templates", name, len(w.templates.wanted))
		}
	}
}

func TestColdStartAsksForNoTemplate(t *testing.T) {
	w := warmWorld(t)
	for name, c := range map[string]Create{"created": {Start: true, Cold: true}, "started": {}} {
		c.Name, c.Wait = name, true
		v, err := w.Create(t.Context(), c, quiet{})
		if err == nil {
			_, err = w.Start(t.Context(), v.ID, true, true, quiet{})
		}
		if err != nil {
			t.Fatal(err)
		}
		if w.shims.of(w.Dirs.VM(v.ID)).launch.Restore != nil {
			t.Errorf("%s: it is a fork", name)
		}
	}
	w.close()
	if len(w.templates.wanted) != 0 {
		t.Errorf("it wants templates: %+v", w.templates.wanted)
	}
}

func TestBootWithoutATemplateWantsOne(t *testing.T) {
	w := warmWorld(t)
	w.templates.fork = nil
	wanted := make(chan template.Spec, 1)
	w.Templates = wanting{&w.templates, wanted}
	if _, err := w.Create(t.Context(), Create{Name: "box", Start: true, Wait: true}, quiet{}); err != nil {
		t.Fatal(err)
	}
	spec := <-wanted
	if spec.Key.Image != testImage.Digest || spec.Setup.Hostname != "" || spec.Setup.MachineID != "" || spec.Machine.Dir != "" {
		t.Errorf("wanted %+v", spec)
	}
	if slices.ContainsFunc(spec.Machine.Disks, func(d vmm.Disk) bool { return !d.ReadOnly }) {
		t.Errorf("with the VM's own disk: %+v", spec.Machine.Disks)
	}
}

func TestTemplateThatCannotBeRestoredGoesAndIsMadeAgain(t *testing.T) {
	w := warmWorld(t)
	w.shims.guest = func(s *fakeShim) {
		s.update(func() {
			s.status.State, s.status.ReadyAt, s.status.NotRestored = shim.Running, time.Now(), "it is damaged"
		})
	}
	wanted := make(chan template.Spec, 1)
	w.Templates = wanting{&w.templates, wanted}
	if _, err := w.Create(t.Context(), Create{Name: "box", Start: true, Wait: true}, quiet{}); err != nil {
		t.Fatal(err)
	}
	<-wanted
	w.close()
	if !slices.Equal(w.templates.removed, []string{"t1"}) {
		t.Errorf("removed %q", w.templates.removed)
	}
}

// wanting tells a test of what is wanted.
type wanting struct {
	Templates
	wanted chan template.Spec
}

func (w wanting) Want(s template.Spec) { w.wanted <- s }

func TestAWorkSeedIsADiskAndMakesAnotherTemplate(t *testing.T) {
	w := warmWorld(t)
	w.templates.fork = nil
	wanted := make(chan template.Spec, 1)
	w.Templates = wanting{&w.templates, wanted}
	seen := map[string]bool{}
	for _, seed := range []string{"", "5eed", "07e4"} {
		w.image.WorkSeedPath, w.image.Seed = "/seed", seed
		v, err := w.Create(t.Context(), Create{Name: "box" + seed, Start: true, Wait: true}, quiet{})
		if err != nil {
			t.Fatal(err)
		}
		spec, serials := <-wanted, ""
		for _, d := range w.shims.of(w.Dirs.VM(v.ID)).launch.Machine.Disks {
			serials += fmt.Sprint(d.Serial, " ", d.ReadOnly, " ")
		}
		if want := map[bool]string{true: "root true modules true seed true disk false ", false: "root true modules true disk false "}[seed != ""]; serials != want {
			t.Errorf("the disks are %q, not %q", serials, want)
		}
		if seed != "" && spec.Machine.Disks[2].Path != "/seed" || strings.HasSuffix(spec.Machine.Cmdline, " banger.seed=sha256:"+seed) != (seed != "") {
			t.Errorf("the template of %q has %+v and %q", seed, spec.Machine.Disks, spec.Machine.Cmdline)
		}
		if id := spec.Key.ID(); seen[id] {
			t.Errorf("%q would be a fork of another's template", seed)
		} else {
			seen[id] = true
		}
	}
}
