package kernel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"banger"

	"github.com/pierrec/lz4/v4"
	"github.com/u-root/u-root/pkg/cpio"
)

func testStore(t *testing.T) *Store {
	t.Helper()
	return NewStore(filepath.Join(t.TempDir(), "kernels"), filepath.Join(t.TempDir(), "downloads"))
}

func mustImport(t *testing.T, s *Store, name, dir string) banger.Kernel {
	t.Helper()
	k, err := s.Import(context.Background(), ImportRequest{Name: name, Dir: dir, Distro: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestImportedKernelIsFoundByNameAndDigest(t *testing.T) {
	s := testStore(t)
	k := mustImport(t, s, "mine", testKernelDir(t))
	if k.Release != testRelease || k.Arch != "amd64" || k.Distro != "test" || k.SizeBytes == 0 || k.ImportedAt.IsZero() {
		t.Errorf("imported %+v", k)
	}
	for _, path := range []string{k.VmlinuzPath, k.VmlinuxPath, k.ModulesPath, filepath.Join(k.Dir, "early", "order")} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	for _, ref := range []string{"mine", k.Digest} {
		if got, err := s.Get(ref); err != nil || got.Digest != k.Digest || got.ModulesPath != k.ModulesPath {
			t.Errorf("%s: %+v, %v", ref, got, err)
		}
	}
	order, _ := os.ReadFile(filepath.Join(k.Dir, "early", "order"))
	if !strings.HasPrefix(string(order), "000-virtio_ring.ko\n001-virtio.ko\n") {
		t.Errorf("order:\n%s", order)
	}
}

func TestEqualKernelsAreOneEntryThatGoesWithItsLastName(t *testing.T) {
	s := testStore(t)
	a := mustImport(t, s, "a", testKernelDir(t))
	b := mustImport(t, s, "b", testKernelDir(t))
	if a.Digest != b.Digest {
		t.Fatalf("digests %s and %s", a.Digest, b.Digest)
	}
	if list, err := s.List(); err != nil || len(list) != 2 || list[0].Name != "a" || list[1].Name != "b" {
		t.Fatalf("list %+v, %v", list, err)
	}
	if err := s.Remove("a"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("a"); banger.CodeOf(err) != banger.NotFound {
		t.Errorf("a is still there: %v", err)
	}
	if _, err := s.Get("b"); err != nil {
		t.Errorf("b is gone: %v", err)
	}
	if err := s.Remove("b"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(a.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the entry is still there: %v", err)
	}
	if err := s.Remove("b"); banger.CodeOf(err) != banger.NotFound {
		t.Errorf("removing it again: %v", err)
	}
}

func TestReplacedKernelStaysForWhoBootsIt(t *testing.T) {
	s := testStore(t)
	old := mustImport(t, s, "k", testKernelDir(t))
	dir := testKernelDir(t)
	extra := filepath.Join(dir, "lib/modules", testRelease, "kernel", "extra.ko")
	if err := os.WriteFile(extra, testModule(t), 0o644); err != nil {
		t.Fatal(err)
	}
	renewed := mustImport(t, s, "k", dir)
	if renewed.Digest == old.Digest {
		t.Fatal("another module did not change the digest")
	}
	if got, err := s.Get(old.Digest); err != nil || got.Name != "" {
		t.Errorf("the old entry: %+v, %v", got, err)
	}
	list, err := s.List()
	if err != nil || len(list) != 2 || list[0].Digest != renewed.Digest || list[1].Name != "" {
		t.Errorf("list %+v, %v", list, err)
	}
}

func TestANameWhoseKernelIsGoneHidesNoOtherAndCanBeRemoved(t *testing.T) {
	s := testStore(t)
	gone := strings.Repeat("f", 64)
	if err := s.point("gone", gone); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(s.entryDir(gone[1:]+"0"), 0o700); err != nil { // one without a record
		t.Fatal(err)
	}
	mustImport(t, s, "there", testKernelDir(t))
	if all, err := s.List(); err != nil || len(all) != 1 || all[0].Name != "there" {
		t.Errorf("listed: %+v %v", all, err)
	}
	if err := s.Remove("gone"); err != nil {
		t.Error(err)
	}
	if err := s.Remove("gone"); banger.CodeOf(err) != banger.NotFound {
		t.Errorf("removed again: %v", err)
	}
	if names, err := s.names(); err != nil || len(names) != 1 {
		t.Errorf("names: %v %v", names, err)
	}
}

func TestAKernelWhoseRecordIsDamagedHidesNoOtherAndCanBeRemovedOrMended(t *testing.T) {
	s, dir := testStore(t), testKernelDir(t)
	k := mustImport(t, s, "mine", dir)
	spoil := func() {
		if err := os.WriteFile(filepath.Join(k.Dir, recordFile), []byte(`{"release":`), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	spoil()
	if err := Verify(t.Context(), k); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("it is said to be whole: %v", err)
	}
	all, err := s.List()
	if err != nil || len(all) != 1 || all[0].Name != "mine" || all[0].Digest != k.Digest {
		t.Errorf("listed are %+v, %v", all, err)
	}
	if err := Verify(t.Context(), mustImport(t, s, "mine", dir)); err != nil {
		t.Errorf("imported again: %v", err)
	}
	spoil()
	if err := s.Remove("mine"); err != nil {
		t.Error(err)
	}
	if all, err := s.List(); err != nil || len(all) > 0 {
		t.Errorf("still there: %+v, %v", all, err)
	}
}

func TestImportRefusesWhatCannotBootAndLeavesNothing(t *testing.T) {
	modulesOf := func(dir string) string { return filepath.Join(dir, "lib/modules", testRelease) }
	for name, c := range map[string]struct {
		spoil func(dir string) error
		want  string
	}{
		"no kernel": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "boot/vmlinuz-"+testRelease), []byte("text"), 0o644)
		}, "boot/vmlinuz-" + testRelease + " as a kernel: it is neither"},
		"kernel missing": {func(dir string) error { return os.RemoveAll(filepath.Join(dir, "boot")) }, "holds no vmlinuz"},
		"two kernels": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "boot/vmlinuz-2"), nil, 0o644)
		}, "holds several"},
		"modules of another": {func(dir string) error {
			return os.Rename(modulesOf(dir), filepath.Join(dir, "lib/modules/6.1.0-other"))
		}, "cannot find the modules of " + testRelease},
		"module missing": {func(dir string) error {
			return os.Remove(filepath.Join(modulesOf(dir), "kernel/fs/overlayfs/overlay.ko"))
		}, "no module overlay"},
		"broken module": {func(dir string) error {
			return os.WriteFile(filepath.Join(modulesOf(dir), "kernel/fs/overlayfs/overlay.ko"), []byte("x"), 0o644)
		}, "overlay.ko is no kernel module"},
		"module built for another": {func(dir string) error {
			wrong := elfFile(t, 1, ".modinfo", []byte("vermagic=5.10.0-other SMP\x00"), false)
			return os.WriteFile(filepath.Join(modulesOf(dir), "kernel/wrong.ko"), wrong, 0o644)
		}, "built for 5.10.0-other"},
	} {
		s := testStore(t)
		dir := testKernelDir(t)
		if err := c.spoil(dir); err != nil {
			t.Fatal(err)
		}
		_, err := s.Import(context.Background(), ImportRequest{Name: "k", Dir: dir})
		if banger.CodeOf(err) != banger.BadRequest || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v", name, err)
		}
		if list, err := s.List(); err != nil || len(list) > 0 {
			t.Errorf("%s: listed %v, %v", name, list, err)
		}
		if left, _ := os.ReadDir(filepath.Join(s.dir, "building")); len(left) > 0 {
			t.Errorf("%s: %s is left", name, left[0].Name())
		}
	}
}

func TestImportWantsADirectoryOrBothFiles(t *testing.T) {
	for _, req := range []ImportRequest{
		{Name: "k"}, {Name: "k", Vmlinuz: "v"}, {Name: "k", Modules: "m"},
		{Name: "k", Dir: "d", Vmlinuz: "v", Modules: "m"}, {Name: "../k", Dir: "d"},
		{Name: "k", Dir: testKernelDir(t), Arch: "arm64"},
	} {
		if _, err := testStore(t).Import(context.Background(), req); banger.CodeOf(err) != banger.BadRequest {
			t.Errorf("%+v: %v", req, err)
		}
	}
}

// Such a kernel has a directory of modules too, which says what is built in.
func TestAKernelWithEverythingBuiltInIsImported(t *testing.T) {
	dir := testKernelDir(t)
	modules := filepath.Join(dir, "lib/modules", testRelease)
	var builtin strings.Builder
	err := filepath.WalkDir(modules, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".ko") {
			return err
		}
		builtin.WriteString(strings.TrimPrefix(path, modules+"/") + "\n")
		return os.Remove(path)
	})
	if before, _ := os.ReadFile(filepath.Join(modules, modulesBuiltin)); err == nil {
		err = os.WriteFile(filepath.Join(modules, modulesBuiltin), append(before, builtin.String()...), 0o644)
	}
	if err != nil || builtin.Len() == 0 {
		t.Fatalf("built in are %q, %v", builtin.String(), err)
	}
	k, err := testStore(t).Import(context.Background(), ImportRequest{Name: "k", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if early, _ := filepath.Glob(filepath.Join(k.Dir, "early", "*.ko")); len(early) > 0 {
		t.Errorf("init loads %q", early)
	}
}

func TestCompressedModulesAndAnELFKernelAreImported(t *testing.T) {
	dir := testKernelDir(t)
	overlay := filepath.Join(dir, "lib/modules", testRelease, "kernel/fs/overlayfs/overlay.ko")
	content, _ := os.ReadFile(overlay)
	if err := errors.Join(os.Remove(overlay), os.WriteFile(overlay+".zst", compressed(t, "zstd", content), 0o644)); err != nil {
		t.Fatal(err)
	}
	vmlinux := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(vmlinux, testVmlinux(t), 0o644); err != nil {
		t.Fatal(err)
	}
	k, err := testStore(t).Import(context.Background(), ImportRequest{Name: "k", Vmlinuz: vmlinux, Modules: filepath.Join(dir, "lib/modules")})
	if err != nil {
		t.Fatal(err)
	}
	if k.VmlinuzPath != "" || k.VmlinuzSHA256 != "" || k.VmlinuxSHA256 == "" || k.Release != testRelease {
		t.Errorf("imported %+v", k)
	}
	early, _ := filepath.Glob(filepath.Join(k.Dir, "early", "*-overlay.ko"))
	if len(early) != 1 {
		t.Fatalf("early overlay: %v", early)
	}
	if got, _ := os.ReadFile(early[0]); !bytes.Equal(got, content) {
		t.Error("the early module is not unpacked")
	}
}

func TestImportsOfOneNameAtOnceLeaveOneSoundEntry(t *testing.T) {
	s, dir := testStore(t), testKernelDir(t)
	if err := os.MkdirAll(filepath.Join(s.dir, "building", "k", "left from a crash"), 0o700); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := s.Import(context.Background(), ImportRequest{Name: "k", Dir: dir}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	list, err := s.List()
	if err != nil || len(list) != 1 || list[0].Name != "k" {
		t.Errorf("list %+v, %v", list, err)
	}
	if left, _ := os.ReadDir(filepath.Join(s.dir, "building")); len(left) > 0 {
		t.Errorf("%s is left", left[0].Name())
	}
}

func TestPullOfAnUnknownNameNamesTheAlternatives(t *testing.T) {
	_, err := testStore(t).Pull(context.Background(), "no-such", false, banger.Access{}, nil)
	if banger.CodeOf(err) != banger.NotFound || len(banger.HintsOf(err)) == 0 {
		t.Errorf("%v, hints %v", err, banger.HintsOf(err))
	}
}

func TestInitramfsHoldsTheAgentAndTheEarlyModules(t *testing.T) {
	s := testStore(t)
	k := mustImport(t, s, "k", testKernelDir(t))
	agent := []byte(strings.Repeat("agent", 1000))
	path, sum, err := Initramfs(context.Background(), k, agent)
	if err != nil {
		t.Fatal(err)
	}
	again, sumAgain, err := Initramfs(context.Background(), k, agent)
	if err != nil || again != path || sumAgain != sum {
		t.Errorf("the second time: %s %s, %v", again, sumAgain, err)
	}
	if other, _, err := Initramfs(context.Background(), k, []byte("other")); err != nil || other == path {
		t.Errorf("another agent: %s, %v", other, err)
	}
	files := readInitramfs(t, path)
	if init := files["init"]; init.Mode != cpio.S_IFREG|0o755 || content(t, init) != string(agent) {
		t.Errorf("init: %+v", init.Info)
	}
	if c := files["dev/console"]; c.Mode != cpio.S_IFCHR|0o600 || c.Rmajor != 5 || c.Rminor != 1 {
		t.Errorf("console: %+v", c.Info)
	}
	inodes := map[uint64]bool{}
	for name, r := range files {
		if inodes[r.Ino] {
			t.Errorf("%s shares its inode", name)
		}
		inodes[r.Ino] = true
	}
	for name := range strings.FieldsSeq(content(t, files["modules/order"])) {
		want, err := os.ReadFile(filepath.Join(k.Dir, "early", name))
		if err != nil || content(t, files["modules/"+name]) != string(want) {
			t.Errorf("modules/%s differs, %v", name, err)
		}
	}
}

func readInitramfs(t *testing.T, path string) map[string]cpio.Record {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	plain, err := io.ReadAll(lz4.NewReader(f))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]cpio.Record{}
	for r := cpio.Newc.Reader(bytes.NewReader(plain)); ; {
		record, err := r.ReadRecord()
		if err == io.EOF || record.Name == cpio.Trailer {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		files[record.Name] = record
	}
}

func content(t *testing.T, r cpio.Record) string {
	t.Helper()
	if r.ReaderAt == nil {
		return ""
	}
	b, err := io.ReadAll(io.NewSectionReader(r, 0, int64(r.FileSize)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFreshImportLeavesANameToWhatItStandsFor(t *testing.T) {
	s, dir := testStore(t), testKernelDir(t)
	k := mustImport(t, s, "mine", dir)
	if again, err := s.Import(context.Background(), ImportRequest{Name: "mine", Dir: dir, Fresh: true}); err != nil || again.Digest != k.Digest {
		t.Errorf("the same: %v", err)
	}
	extra := filepath.Join(dir, "lib/modules", testRelease, "kernel", "extra.ko")
	if err := os.WriteFile(extra, testModule(t), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := s.Import(context.Background(), ImportRequest{Name: "mine", Dir: dir, Fresh: true})
	if banger.CodeOf(err) != banger.AlreadyExists || len(banger.HintsOf(err)) == 0 {
		t.Errorf("another: %v", err)
	}
	if got, err := s.Get("mine"); err != nil || got.Digest != k.Digest {
		t.Errorf("the name stands for %s, %v", got.Digest, err)
	}
	if all, err := s.List(); err != nil || len(all) != 1 {
		t.Errorf("there are %d, %v", len(all), err)
	}
}
