package config

import (
	"os"
	"sync"
	"syscall"
	"time"
)

// Source is a configuration file that is read again when it changed. It is
// safe for concurrent use.
type Source struct {
	path string

	mu       sync.Mutex
	read     bool
	seen     stamp
	config   Config
	warnings []Warning
	err      error
}

// stamp tells versions of a file apart; the zero stamp is no file.
type stamp struct {
	modified, changed time.Time
	size              int64
	device, inode     uint64
}

// NewSource is the configuration at path. Nothing is read yet.
func NewSource(path string) *Source { return &Source{path: path} }

// Current is the configuration as the file is now. While the file is wrong
// every call fails alike, so that no command runs on settings its owner has
// changed.
func (s *Source) Current() (Config, []Warning, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := stampOf(s.path); !s.read || now != s.seen {
		s.config, s.warnings, s.err = Load(s.path)
		s.read, s.seen = true, now
	}
	return s.config, s.warnings, s.err
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	st := info.Sys().(*syscall.Stat_t)
	return stamp{
		modified: info.ModTime(), changed: time.Unix(st.Ctim.Unix()), size: info.Size(),
		device: st.Dev, inode: st.Ino,
	}
}
