package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// aCommand is a command of banger's in a document, up to a command for a guest, what
// the shell does with it, or a comment.
var aCommand = regexp.MustCompile(`^\$ banger (.*?)(?: -- .*| [|>].*|;.*| +# .*)?$`)

// TestCommandsOfTheDocumentsExist sees that each has the flags that a document gives
// it. That they work, test/e2e sees.
func TestCommandsOfTheDocumentsExist(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, file := range append(files, "../../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			found := aCommand.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
			if found == nil {
				continue
			}
			seen++
			root := newRoot(&app{}, nil)
			cmd, rest, err := root.Find(strings.Fields(strings.ReplaceAll(found[1], "'", "")))
			if err == nil && !cmd.DisableFlagParsing {
				err = cmd.ParseFlags(rest)
			}
			if err != nil || !cmd.Runnable() {
				t.Errorf("%s: %q is no command: %v", filepath.Base(file), found[1], err)
			}
		}
	}
	if seen < 40 {
		t.Errorf("the documents have %d commands", seen)
	}
}
