package cli

import (
	"context"
	"fmt"
	"path"
	"strings"

	"banger/internal/workspace"
)

// preview prints what would go in.
func (a *app) preview(ctx context.Context, p *workspace.Plan, user, guestPath string) error {
	if guestPath == "" {
		name, _, _ := strings.Cut(user, ":")
		guestPath = "~" + name + "/" + path.Base(workspace.DefaultGuestPath)
	}
	files, bytes, err := p.Count(ctx)
	if err != nil {
		return err
	}
	say := func(key, format string, args ...any) {
		fmt.Fprintf(a.Out, "%-12s%s\n", key, text(format, args))
	}
	say("repository", "%s", p.Root)
	if p.Sub != "" {
		say("begin in", "%s", p.Sub)
	}
	say("to", "%s", guestPath)
	say("at", "%s", at(p))
	say("history", "%s", depth(p))
	say("files", "%s, %s", counted(files, "file"), size(bytes))
	for _, c := range p.Changes {
		say(map[byte]string{'M': "changed", 'A': "added", 'D': "deleted"}[c.Kind], "%q", c.Path)
	}
	for _, name := range p.Untracked {
		say("untracked", "%q", name)
	}
	for _, name := range p.Included {
		say("included", "%q", name)
	}
	for _, m := range p.Modules {
		say("submodule", "%q", m.Path)
	}
	(&bringing{app: a, plan: p}).notes()
	return nil
}

func at(p *workspace.Plan) string {
	head, branch := "no commit yet", "a detached head"
	if p.Head != "" {
		head = p.Head[:12]
	}
	if p.Branch != "" {
		branch = "the branch " + p.Branch
	}
	return head + ", " + branch
}

func depth(p *workspace.Plan) string {
	switch {
	case p.Mode == workspace.Full:
		return "all of it"
	case p.Head == "":
		return "none"
	}
	return "the last " + counted(p.Depth, "commit")
}
