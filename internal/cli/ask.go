package cli

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strings"
)

// ask puts a question that "y" or "yes" agrees to. Everything else, the end
// of the input too, declines. Once ctx has ended no answer counts.
func (v *voice) ask(ctx context.Context, question string) (bool, error) {
	v.mu.Lock()
	_, _ = io.WriteString(v.err, "banger: "+question+" [y/N] ")
	v.mu.Unlock()
	answer, err := readLine(ctx, os.Stdin)
	if ctx.Err() != nil {
		v.mu.Lock()
		_, _ = io.WriteString(v.err, "\n")
		v.mu.Unlock()
		return false, context.Cause(ctx)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}

// readLine reads a line, or as much of it as comes before the end.
func readLine(ctx context.Context, from io.Reader) (string, error) {
	type result struct {
		line string
		err  error
	}
	read := make(chan result, 1)
	// Nobody waits for this one: a read of a terminal cannot be ended.
	go func() {
		line, err := bufio.NewReader(from).ReadString('\n')
		read <- result{line, err}
	}()
	select {
	case r := <-read:
		return r.line, r.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}
