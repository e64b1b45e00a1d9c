package cli

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strings"
)

// ask puts a question that "y" or "yes" agrees to. Everything else, the end
// of the input too, declines.
func (v *voice) ask(question string) (bool, error) {
	v.mu.Lock()
	_, _ = io.WriteString(v.err, "banger: "+question+" [y/N] ")
	v.mu.Unlock()
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}
