package cli

import "github.com/spf13/cobra"

// entry is a command and how it is made. To make all of them takes longer than most
// commands need to be done, so that only what was asked for is made.
type entry struct {
	group string // of the help, "" for none
	name  string
	make  func(*app) *cobra.Command
}

// made gives the command that asked begins with or, where that is none of them (help,
// an alias, a flag, a mistake), all.
func made(a *app, asked []string, entries []entry) (all []*cobra.Command) {
	for _, e := range entries {
		if len(asked) > 0 && asked[0] == e.name {
			return []*cobra.Command{e.in(a)}
		}
	}
	for _, e := range entries {
		all = append(all, e.in(a))
	}
	return all
}

func (e entry) in(a *app) *cobra.Command {
	cmd := e.make(a)
	cmd.GroupID = e.group
	return cmd
}
