package workspace

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"banger"
)

// Head is the commit that would be brought in once more: the one the repository is
// at now, "" before the first, or the one its branch was asked to begin at.
func Head(ctx context.Context, w banger.Workspace) (string, error) {
	if w.From == "" && stillAt(filepath.Join(w.SourcePath, ".git"), w.HeadCommit) {
		return w.HeadCommit, nil
	}
	g, ref := git{dir: w.SourcePath}, "HEAD"
	if w.From != "" {
		ref = w.From
	}
	head, err := g.line(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", ref+"^{commit}")
	if failed(err) == 1 && w.From == "" {
		return "", nil
	}
	return head, err
}

// stillAt says whether a git directory is plainly at a commit, as nearly every time
// that a command begins: two small files say so sooner than git is loaded. Where
// they do not, only git knows.
func stillAt(dir, commit string) bool {
	head, err := os.ReadFile(filepath.Join(dir, "HEAD"))
	if err != nil || commit == "" {
		return false
	}
	at := strings.TrimSpace(string(head))
	ref, named := strings.CutPrefix(at, "ref: ")
	if !named {
		return at == commit
	}
	if !strings.HasPrefix(ref, "refs/heads/") || !filepath.IsLocal(ref) {
		return false
	}
	id, err := os.ReadFile(filepath.Join(dir, ref))
	if os.IsNotExist(err) {
		packed, err := os.ReadFile(filepath.Join(dir, "packed-refs"))
		return err == nil && strings.Contains("\n"+string(packed), "\n"+commit+" "+ref+"\n")
	}
	return err == nil && strings.TrimSpace(string(id)) == commit
}
