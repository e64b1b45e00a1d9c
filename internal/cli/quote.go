package cli

import (
	"strings"

	"banger"
)

// quoteWords renders arguments so that a shell reads them back.
func quoteWords(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = banger.ShellWord(w)
	}
	return strings.Join(quoted, " ")
}
