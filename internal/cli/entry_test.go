package cli

import (
	"slices"
	"testing"

	"github.com/spf13/cobra"
)

// A command that is made alone is the one that the whole tree has at that place.
func TestEveryCommandIsFoundByItsNameAlone(t *testing.T) {
	whole := newRoot(&app{voice: newVoice()}, nil)
	var visit func(cmd *cobra.Command, words []string)
	visit = func(cmd *cobra.Command, words []string) {
		for _, c := range cmd.Commands() {
			words := append(slices.Clone(words), c.Name())
			root := newRoot(&app{voice: newVoice()}, words)
			got, rest, err := root.Find(words)
			if len(root.Commands()) != 1 || err != nil || len(rest) > 0 || got.CommandPath() != c.CommandPath() || got.UsageString() != c.UsageString() {
				t.Errorf("%v leads to %s and leaves %v (%v)", words, got.CommandPath(), rest, err)
			}
			visit(c, words)
		}
	}
	visit(whole, nil)
	if n := len(newVM(&app{voice: newVoice()}, []string{"exec"}).Commands()); n != 1 {
		t.Errorf("for vm exec %d commands of vm are made", n)
	}
	if n, all := len(newRoot(&app{voice: newVoice()}, []string{"rm"}).Commands()), len(whole.Commands()); n != all {
		t.Errorf("for an alias %d commands are made of %d", n, all)
	}
}
