package cli

import (
	"bufio"
	"io"
	"os"
	"strings"

	"banger"
)

// environment collects KEY=VALUE for a guest command: the file first, so that
// -e wins. A KEY alone is taken from our own environment, and left out where
// that lacks it. Values never reach a message: they may be secrets.
func environment(flags []string, file string, lookup func(string) (string, bool)) ([]string, error) {
	var env []string
	if file != "" {
		fromFile, err := readEnvFile(file, lookup)
		if err != nil {
			return nil, err
		}
		env = fromFile
	}
	for _, f := range flags {
		kv, ok, err := variable(f, lookup)
		if err != nil {
			return nil, err
		}
		if ok {
			env = append(env, kv)
		}
	}
	return env, nil
}

func readEnvFile(path string, lookup func(string) (string, bool)) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, badUsage("cannot read the environment file: %w", err)
	}
	defer f.Close()
	return parseEnv(path, f, lookup)
}

// parseEnv reads lines of KEY=VALUE or KEY; blank ones and those that begin
// with # are skipped. Quotes mean nothing, as in docker's files.
func parseEnv(name string, r io.Reader, lookup func(string) (string, bool)) ([]string, error) {
	var env []string
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimLeft(lines.Text(), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		kv, ok, err := variable(line, lookup)
		if err != nil {
			return nil, badUsage("%s:%d: %w", name, n, err)
		}
		if ok {
			env = append(env, kv)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, badUsage("cannot read the environment file %s: %w", name, err)
	}
	return env, nil
}

func variable(s string, lookup func(string) (string, bool)) (kv string, ok bool, err error) {
	key, _, hasValue := strings.Cut(s, "=")
	if key == "" || strings.ContainsAny(key, " \t\x00") {
		return "", false, banger.Errorf(banger.BadRequest, "bad environment variable name %q", key).
			Hint("-e KEY=VALUE sets one, -e KEY takes it from your environment")
	}
	if hasValue {
		return s, true, nil
	}
	value, ok := lookup(key)
	return key + "=" + value, ok, nil
}
