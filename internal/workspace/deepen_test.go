package workspace

import (
	"os"
	"testing"

	"banger"
)

// wholeHistory says whether the guest has all of the host's commits, and sound ones.
func (r *rig) wholeHistory() {
	r.Helper()
	if out := r.guest("fsck", "--no-dangling"); out != "" {
		r.Errorf("git fsck in the guest: %s", out)
	}
	if got, want := r.guest("log", "--oneline"), r.host("log", "--oneline"); got != want {
		r.Errorf("the guest's history is\n%s, want\n%s", got, want)
	}
}

func TestTheWholeHistoryComesIntoAShallowClone(t *testing.T) {
	for name, change := range map[string]func(r *rig){
		"nothing changed": func(*rig) {},
		"another commit":  func(r *rig) { r.write("README", "third\n"); r.commit("three") },
		"another branch": func(r *rig) {
			r.host("checkout", "-q", "-b", "side", "HEAD~1")
			r.write("aside", "x\n")
			r.commit("aside")
		},
		"a merge": func(r *rig) {
			r.host("checkout", "-q", "-b", "side", "HEAD~1")
			r.write("aside", "x\n")
			r.commit("aside")
			r.host("checkout", "-q", "main")
			r.host("merge", "-q", "--no-edit", "side")
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := furnished(t)
			r.mustDeliver(Options{})
			r.inGuest("theirs", "the guest's own\n")
			change(r)
			r.mustDeliver(Options{Mode: Full})
			r.sameFiles("theirs")
			r.wholeHistory()
			if done := r.mustDeliver(Options{Mode: Full}); !done.Nothing {
				t.Error("once more, and something had changed")
			}
		})
	}
}

func TestAHistoryThatEndsOnTheHostEndsInTheGuest(t *testing.T) {
	r := furnished(t)
	r.host("clone", "-q", "--depth", "1", "file://"+r.repo, "../cut")
	r.repo = r.at("../cut")
	r.mustDeliver(Options{})
	r.write("README", "third\n")
	r.commit("three")
	r.mustDeliver(Options{Mode: Full})
	r.wholeHistory()
}

func TestAWholeHistoryLeavesAGuestThatWentOnWhereItIs(t *testing.T) {
	r := furnished(t)
	r.mustDeliver(Options{})
	r.inGuest("theirs", "x\n")
	r.guest("add", "-A")
	r.guest("commit", "-q", "-m", "the guest's")
	at := r.guest("rev-parse", "HEAD")
	r.mustDeliver(Options{Mode: Full})
	if now := r.guest("rev-parse", "HEAD"); now != at {
		t.Errorf("the guest is at %s, was at %s", now, at)
	}
	r.write("README", "third\n")
	r.commit("three")
	if _, err := r.deliver(Options{Mode: Full}); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("%v; want a conflict", err)
	}
	if _, err := os.Stat(r.path + "/theirs"); err != nil {
		t.Error(err)
	}
	r.mustDeliver(Options{Mode: Full}, forced)
	r.wholeHistory()
}
