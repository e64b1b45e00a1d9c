package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// FileSync is one [[file_sync]]: a file or directory of the owner's home that
// every new VM gets.
type FileSync struct {
	Host  string      // absolute, inside the home directory
	Guest string      // absolute, under /root
	Mode  fs.FileMode // of a single file; files of a directory keep their own
}

func (f FileSync) String() string {
	return fmt.Sprintf("%s → %s (%04o)", f.Host, f.Guest, f.Mode)
}

const (
	defaultSyncMode fs.FileMode = 0o600
	guestHome                   = "/root"
)

var errNoKey = errors.New("there is no such key")

func (e entry) inFileSync() bool { return strings.HasPrefix(e.key, "file_sync[") }

// applyFileSync takes one value of one entry. What the values mean together
// is checked once all are known.
func (c *Config) applyFileSync(e entry, origins map[string]string, file string) error {
	table, field, _ := strings.Cut(e.key, "]")
	i, err := strconv.Atoi(strings.TrimPrefix(table, "file_sync["))
	if err != nil {
		return errNoKey
	}
	for len(c.FileSync) <= i {
		c.FileSync = append(c.FileSync, FileSync{Mode: defaultSyncMode})
	}
	if name := table + "]"; origins[name] == "" {
		origins[name] = fmt.Sprintf("%s:%d", file, e.line)
	}
	if field == "" && e.value == any(tableHead{}) {
		return nil
	}
	s, ok := e.value.(string)
	if !ok {
		return wrong("a string", e.value)
	}
	switch field {
	case ".host":
		c.FileSync[i].Host = s
	case ".guest":
		c.FileSync[i].Guest = s
	case ".mode":
		mode, err := strconv.ParseUint(s, 8, 32)
		if err != nil || mode > 0o777 {
			return wrong(`an octal mode such as "0600"`, s)
		}
		c.FileSync[i].Mode = fs.FileMode(mode)
	default:
		return errNoKey
	}
	return nil
}

// checkFileSync resolves and checks the paths of all entries.
func (c *Config) checkFileSync(file string, host Host, origins map[string]string) error {
	for i := range c.FileSync {
		f := &c.FileSync[i]
		name := fmt.Sprintf("file_sync[%d]", i)
		hostPath, err := syncHost(f.Host, host.Home)
		if err != nil {
			return badAt(origins[name], file, name+".host", err)
		}
		guestPath, err := syncGuest(f.Guest)
		if err != nil {
			return badAt(origins[name], file, name+".guest", err)
		}
		f.Host, f.Guest = hostPath, guestPath
	}
	return nil
}

// badAt is badLine for an origin, which ends in the line.
func badAt(origin, file, key string, err error) error {
	line, _ := strconv.Atoi(strings.TrimPrefix(origin, file+":"))
	return badLine(file, line, key, err)
}

func syncHost(s, home string) (string, error) {
	switch {
	case s == "":
		return "", errors.New("it is missing")
	case climbs(s):
		return "", wrong(`a path without ".."`, s)
	case strings.HasPrefix(s, "~") && !strings.HasPrefix(s, "~/"):
		return "", wrong("a path of your own home directory", s)
	}
	expanded, err := expand(s, home)
	if err != nil {
		return "", err
	}
	inside, err := filepath.Rel(home, expanded)
	if err != nil || inside == "." || climbs(inside) {
		return "", wrong("a path inside your home directory", s)
	}
	return expanded, nil
}

func syncGuest(s string) (string, error) {
	switch {
	case s == "":
		return "", errors.New("it is missing")
	case climbs(s):
		return "", wrong(`a path without ".."`, s)
	}
	if inside, found := strings.CutPrefix(s, "~/"); found {
		s = path.Join(guestHome, inside)
	}
	s = path.Clean(s)
	if !strings.HasPrefix(s, guestHome+"/") {
		return "", wrong("a path under /root or ~", s)
	}
	return s, nil
}

func climbs(s string) bool { return slices.Contains(strings.Split(s, "/"), "..") }
