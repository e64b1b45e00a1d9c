package workspace

import (
	"os"
	"strings"
	"testing"

	"banger"
)

// withModule gives the host's repository a submodule at lib/it.
func (r *rig) withModule() {
	r.Helper()
	r.host("-c", "protocol.file.allow=always", "clone", "-q", ".", "../library")
	r.host("-c", "protocol.file.allow=always", "submodule", "add", "-q", "../library", "lib/it")
	r.write("lib/it/README", "changed in the submodule\n")
	r.commit("with a submodule")
}

// wholeModule says whether the guest has the submodule as the host has it.
func (r *rig) wholeModule() {
	r.Helper()
	r.sameFiles()
	if got, want := r.guest("-C", "lib/it", "log", "--oneline"), r.host("-C", "lib/it", "log", "--oneline"); got != want {
		r.Errorf("the submodule's history is\n%s, want\n%s", got, want)
	}
	for _, at := range []string{".", "lib/it"} {
		if out := r.guest("-C", at, "fsck", "--no-dangling"); out != "" {
			r.Errorf("git fsck at %s in the guest: %s", at, out)
		}
	}
	if got, want := r.guest("status", "--short"), r.host("status", "--short"); got != want {
		r.Errorf("the guest's status\n%s, the host's\n%s", got, want)
	}
}

func TestASubmoduleThatCameLaterIsBroughtIn(t *testing.T) {
	for _, before := range []string{Overlay, Full} {
		r := furnished(t)
		r.mustDeliver(Options{Mode: before})
		r.inGuest("theirs", "the guest's own\n")
		r.withModule()
		r.mustDeliver(Options{Mode: Full})
		if err := os.Remove(r.path + "/theirs"); err != nil {
			t.Errorf("%s: the guest's own: %v", before, err)
		}
		r.wholeModule()
		if done := r.mustDeliver(Options{Mode: Full}); !done.Nothing {
			t.Errorf("%s: once more, and something had changed", before)
		}
	}
}

func TestWhoAsksAsBeforeLearnsHowASubmoduleComesIn(t *testing.T) {
	r := furnished(t)
	r.mustDeliver(Options{})
	r.withModule()
	_, err := NewPlan(t.Context(), Again(r.record))
	want := "banger vm workspace prepare devbox " + r.repo + " --mode full"
	if hint := banger.NameVM(strings.Join(banger.HintsOf(err), ""), "devbox"); !strings.HasPrefix(hint, want) {
		t.Errorf("%v: the hint is %q, want %q", err, hint, want)
	}
}

func TestASubmoduleWithOneInItThatCameLaterIsBroughtIn(t *testing.T) {
	r := furnished(t)
	r.mustDeliver(Options{Mode: Full})
	r.withModule()
	r.host("-C", "lib/it", "-c", "protocol.file.allow=always", "submodule", "add", "-q", "../library", "in ner")
	r.host("-C", "lib/it", "commit", "-qam", "with one of its own")
	r.commit("with a submodule of a submodule")
	for after := 90_000; after > 0; after -= 20_001 {
		_, _ = r.deliver(Options{Mode: Full}, func(to *Target) { to.Guest = broken{standIn{r.home}, after} })
	}
	r.mustDeliver(Options{Mode: Full})
	r.wholeModule()
	if out := r.guest("submodule", "status", "--recursive"); strings.Count(out, "\n ") != 1 || !strings.HasPrefix(out, " ") {
		t.Errorf("the guest's submodules are\n%s", out)
	}
}

func TestASubmoduleInPlaceOfADirectoryIsBroughtIn(t *testing.T) {
	r := furnished(t)
	r.write("lib/it/README", "a plain file\n")
	r.write("lib/it/old", "another\n")
	r.commit("a directory")
	r.mustDeliver(Options{Mode: Full})
	r.host("rm", "-rq", "lib/it")
	r.withModule()
	r.mustDeliver(Options{Mode: Full})
	r.wholeModule()
}

func TestWhatTheGuestHasInPlaceOfANewSubmoduleStays(t *testing.T) {
	for _, theirs := range []string{"lib/it/README", "lib/it", "lib"} {
		r := furnished(t)
		r.mustDeliver(Options{Mode: Full})
		r.withModule()
		r.inGuest(theirs, "the guest's own\n")
		_, err := r.deliver(Options{Mode: Full})
		if banger.CodeOf(err) != banger.Conflict || !strings.Contains(err.Error(), `"lib`) {
			t.Errorf("%s in the way: %v", theirs, err)
		}
		if got, _ := os.ReadFile(r.path + "/" + theirs); string(got) != "the guest's own\n" {
			t.Errorf("%s of the guest's is %q", theirs, got)
		}
		r.mustDeliver(Options{Mode: Full}, forced)
		r.wholeModule()
	}
}

func TestAGuestsOwnCloneOfASubmoduleStays(t *testing.T) {
	r := furnished(t)
	r.withModule()
	r.host("submodule", "deinit", "-q", "-f", "lib/it")
	r.mustDeliver(Options{Mode: Full})
	r.guest("-c", "protocol.file.allow=always", "clone", "-q", r.repo, "lib/it")
	r.host("-c", "protocol.file.allow=always", "submodule", "update", "-q", "--init")
	if _, err := r.deliver(Options{Mode: Full}); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("%v; want a conflict", err)
	}
	r.guest("-C", "lib/it", "status")
	r.mustDeliver(Options{Mode: Full}, forced)
	r.wholeModule()
}

func TestANewSubmoduleThatWasCutShortCanBeBegunAgain(t *testing.T) {
	for after := 0; after < 60_000; after += 9_001 {
		r := furnished(t)
		r.mustDeliver(Options{Mode: Full})
		r.withModule()
		_, cut := r.deliver(Options{Mode: Full}, func(to *Target) { to.Guest = broken{standIn{r.home}, after} })
		if cut == nil && after == 0 {
			t.Fatal("a stream that breaks off is no error")
		}
		r.mustDeliver(Options{Mode: Full})
		r.wholeModule()
	}
}
