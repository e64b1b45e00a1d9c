package doctor

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/paths"
	"banger/internal/store"
	"banger/internal/template"
	"banger/internal/vmm"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func sha(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }

// checksum writes a file and gives the sum that machines are saved with.
func checksum(t *testing.T, path, content string) string {
	t.Helper()
	write(t, path, content)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum, err := vmm.Checksum(f)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// furnished makes one of everything that has a digest, and gives its files by what
// they are of.
func furnished(t *testing.T, dirs paths.Dirs) map[string][]string {
	t.Helper()
	files := map[string][]string{}
	plant := func(of, path, content string) string {
		write(t, path, content)
		files[of] = append(files[of], path)
		return sha(content)
	}

	image := banger.Image{ID: banger.NewID(), Name: "mine", Managed: true}
	image.ArtifactDir = dirs.Image(image.ID)
	image.RootfsPath = image.ArtifactDir + "/rootfs.ext4"
	sum := plant("image", image.RootfsPath, "the root")
	image.WorkSeedPath = image.ArtifactDir + "/work-seed.ext4"
	seed := map[string]string{"digest": plant("image", image.WorkSeedPath, "the seed")}
	write(t, image.ArtifactDir+"/image.json", asJSON(t, map[string]any{"id": image.ID, "name": image.Name, "digest": sum, "work_seed": seed}))

	registered := banger.Image{ID: banger.NewID(), Name: "own", RootfsPath: dirs.State + "/of-a-person/own.ext4"}
	registered.ArtifactDir = dirs.Image(registered.ID)
	sum = plant("image", registered.RootfsPath, "the person's root")
	write(t, registered.ArtifactDir+"/image.json", asJSON(t, map[string]any{
		"id": registered.ID, "name": registered.Name, "digest": sum, "registered": map[string]any{"path": registered.RootfsPath},
	}))
	foreign := banger.Image{ID: banger.NewID(), Name: "another-tools", RootfsPath: "/nowhere.ext4"} // kept no digest

	parts := map[string]string{"early/order": "", "modules.ext4": "the modules", "vmlinux": "the kernel"}
	digest := sha(fmt.Sprintf("%s  early/order\n%s  modules.ext4\n%s  vmlinux\n", sha(""), sha("the modules"), sha("the kernel")))
	entry := dirs.Kernels() + "/by-digest/" + digest
	for name, content := range parts {
		if content != "" {
			plant("kernel", entry+"/"+name, content)
		} else {
			write(t, entry+"/"+name, content)
		}
	}
	write(t, entry+"/kernel.json", `{"release":"6.1"}`)
	if err := errors.Join(os.MkdirAll(dirs.Kernels()+"/names", 0o700), os.Symlink("../by-digest/"+digest, dirs.Kernels()+"/names/"+banger.DefaultKernel)); err != nil {
		t.Fatal(err)
	}

	tm := template.Template{Size: 1, Dir: dirs.Templates() + "/" + banger.NewID()}
	tm.Sums = template.Sums{Memory: checksum(t, tm.Memory(), "the memory"), Disk: checksum(t, tm.Disk(), "the disk"), State: plant("template", tm.State(), "the state")}
	files["template"] = append(files["template"], tm.Memory(), tm.Disk())
	write(t, tm.Dir+"/template.json", asJSON(t, tm))

	row := banger.VM{ID: banger.NewID(), Name: "devbox", ImageID: image.ID, State: banger.StateStopped, Spec: banger.DefaultSpec()}
	row.Spec.Layout = banger.Layout
	dir := dirs.VM(row.ID)
	write(t, dir.Record(), asJSON(t, map[string]any{"layout": 1, "id": row.ID, "name": row.Name}))
	write(t, dir.Disk(), "its disk")
	state, err := vmm.StateOf("qemu", "7.2", vmm.Config{VCPU: 1, MemoryMiB: 128}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	snapshot := banger.Snapshot{ID: banger.NewID(), Name: "good", Memory: true}
	saved := func(of, in string) string {
		plant(of, in+"/state", string(state))
		files[of] = append(files[of], in+"/memory")
		return checksum(t, in+"/memory", "its memory")
	}
	memory := saved("snapshot", dir.Snapshot(snapshot.ID))
	write(t, dir.Snapshot(snapshot.ID)+"/snapshot.json", asJSON(t, map[string]any{"id": snapshot.ID, "name": "good", "memory": true, "memory_sum": memory}))
	write(t, dir.Suspended()+"/record.json", asJSON(t, map[string]any{"sums": map[string]string{"memory": saved("suspended", dir.Suspended())}}))

	s, err := store.Open(t.Context(), dirs.Database())
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range []banger.Image{image, registered, foreign} {
		err = errors.Join(err, s.UpsertImage(t.Context(), img))
	}
	if err == nil {
		_, err = s.ReserveVM(t.Context(), row, "10.77.0.0/16")
	}
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	return files
}

func (e *exam) verified(t *testing.T) Row {
	t.Helper()
	e.rows, e.Verify = nil, true
	return e.only(t, e.verify)
}

func TestFlippedBitsAreFound(t *testing.T) {
	e := newExam(t)
	files := furnished(t, e.dirs)
	want(t, e.verified(t), Pass, "2 images, 1 kernels, 1 templates and 2 saved machines")
	for of, paths := range files {
		for _, path := range paths {
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			broken := append([]byte(nil), whole...)
			broken[len(broken)/2] ^= 1
			write(t, path, string(broken))
			r := e.verified(t)
			if r.Name != of || r.Verdict == Pass || len(r.Remedies) == 0 {
				t.Errorf("%s flipped: %+v", path, r)
			}
			if of == "image" && r.Remedies[0] != "put a good copy in the place of "+path {
				t.Errorf("%s flipped: %q", path, r.Remedies)
			}
			write(t, path, string(whole))
		}
	}
	want(t, e.verified(t), Pass, "2 images")
}

func TestWhatIsNotReadToTheEndIsNotCalledDamaged(t *testing.T) {
	for _, amid := range []string{"verify image", "verify kernel", "verify template", "verify what is saved"} {
		e := newExam(t)
		furnished(t, e.dirs)
		ctx, cancel := context.WithCancel(t.Context())
		e.Verify = true
		e.Stage = func(stage string) {
			if strings.HasPrefix(stage, amid) {
				cancel()
			}
		}
		if e.verify(ctx); ctx.Err() == nil || len(e.rows) > 0 {
			t.Errorf("interrupted at %q: %v, rows %+v", amid, ctx.Err(), e.rows)
		}
		cancel()
	}
}

func TestOnlyWhatCanBeHadAgainIsRepaired(t *testing.T) {
	e := newExam(t)
	files := furnished(t, e.dirs)
	for of, action := range map[string]Action{"image": "", "kernel": PullKernel, "template": PruneTemplates, "snapshot": "", "suspended": ""} {
		whole, err := os.ReadFile(files[of][0])
		if err != nil {
			t.Fatal(err)
		}
		write(t, files[of][0], "x")
		r := e.verified(t)
		if action == "" && r.Fix != nil || action != "" && (r.Fix == nil || r.Fix.Action != action) {
			t.Errorf("%s: %+v would be done, want %q", of, r.Fix, action)
		}
		write(t, files[of][0], string(whole))
	}
	s, err := store.Open(t.Context(), e.dirs.Database())
	if err != nil {
		t.Fatal(err)
	}
	vms, err := s.VMs(t.Context())
	if err := errors.Join(err, s.DeleteVM(t.Context(), vms[0].ID), s.Close()); err != nil {
		t.Fatal(err)
	}
	write(t, files["image"][0], "x")
	if r := e.verified(t); r.Fix != nil || !strings.Contains(strings.Join(r.Remedies, ""), "banger image delete mine") {
		t.Errorf("an image of which there is no other: %+v", r)
	}
	record := filepath.Join(filepath.Dir(files["image"][0]), "image.json")
	text, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	write(t, record, strings.Replace(string(text), "{", `{"ref":"registry.example/mine:1",`, 1))
	if r := e.verified(t); r.Fix == nil || r.Fix.Action != RebuildImage {
		t.Errorf("an image nothing uses: %+v", r)
	}
}

func TestADamagedKernelIsGotAgainFromWhereItCame(t *testing.T) {
	e := newExam(t)
	files := furnished(t, e.dirs)
	write(t, files["kernel"][0], "x")
	entry := filepath.Dir(files["kernel"][0])
	link := e.dirs.Kernels() + "/names/" + banger.DefaultKernel
	if err := os.Rename(link, e.dirs.Kernels()+"/names/lk"); err != nil {
		t.Fatal(err)
	}
	source := "registry.example/kernel:6.6@sha256:" + sha("manifest")
	write(t, entry+"/kernel.json", `{"distro":"oci","source":"`+source+`"}`)
	if fix := e.verified(t).Fix; fix == nil || fix.Action != PullKernel || fix.Subject != source || fix.As != "lk" {
		t.Errorf("of a registry: %+v would be done", fix)
	}
	write(t, entry+"/kernel.json", `{"distro":"oci`)
	if fix := e.verified(t).Fix; fix != nil {
		t.Errorf("of an unknown source: %+v would be done", fix)
	}
	if err := os.Remove(e.dirs.Kernels() + "/names/lk"); err != nil {
		t.Fatal(err)
	}
	if fix := e.verified(t).Fix; fix == nil || fix.Action != DeleteKernel || fix.Subject != filepath.Base(entry) {
		t.Errorf("without a name: %+v would be done", fix)
	}
}
