package loopback

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

// Owner is who has a prefix: all of one state directory.
type Owner string

// OwnerOf tells state directories apart, also those that are called alike in two
// containers of one network.
func OwnerOf(stateDir string) (Owner, error) {
	st, err := os.Stat(stateDir)
	if err != nil {
		return "", banger.Errorf(banger.Internal, "cannot look at the state directory: %w", err)
	}
	sys := st.Sys().(*syscall.Stat_t)
	return Owner(fmt.Sprintf("%x-%x", sys.Dev, sys.Ino)), nil
}

// Space is where names are; all of one kind of program use the same.
type Space string

// Usual is banger's.
const Usual Space = "banger/loopback"

// The prefixes that a daemon takes where the one it prefers is another's.
const (
	firstSpare = 77
	lastSpare  = 97
)

// Claim finds a prefix for owner that nobody else has, and holds it until the file
// is closed: the preferred one, one that processes of this owner hold already, or
// the next free. Where all are taken it is unavailable.
func (s Space) Claim(ctx context.Context, owner Owner, preferred Prefix) (Prefix, *os.File, error) {
	turn, err := s.takeTurn(ctx)
	if err != nil {
		return Prefix{}, nil, err
	}
	defer turn.Close()
	owners, err := s.owners()
	if err != nil {
		return Prefix{}, nil, err
	}
	p, ok := choose(owners, owner, preferred)
	if !ok {
		return Prefix{}, nil, banger.Errorf(banger.Unavailable, "cannot find a loopback prefix for this daemon: %s and 127.%d to 127.%d are all taken", preferred, firstSpare, lastSpare).
			Hint("set loopback_prefix in config.toml to another, for example \"127.101\"")
	}
	f, err := s.Hold(owner, p, "daemon")
	return p, f, err
}

func choose(owners map[Prefix]map[Owner]bool, owner Owner, preferred Prefix) (Prefix, bool) {
	free := func(p Prefix) bool { return len(owners[p]) == 0 || len(owners[p]) == 1 && owners[p][owner] }
	if free(preferred) {
		return preferred, true
	}
	for p := range owners {
		if free(p) {
			return p, true
		}
	}
	for n := byte(firstSpare); n <= lastSpare; n++ {
		if p := (Prefix{n}); free(p) {
			return p, true
		}
	}
	return Prefix{}, false
}

// Hold has whoever this is hold a prefix of its owner until the file is closed, or
// the process ends. One owner's holders have different names.
func (s Space) Hold(owner Owner, p Prefix, holder string) (*os.File, error) {
	f, err := bind(fmt.Sprintf("%s/%s/%s/%s", s, p, owner, holder))
	if errors.Is(err, unix.EADDRINUSE) {
		err = banger.Errorf(banger.Conflict, "%s holds %s already", holder, p)
	}
	return f, err
}

// turnPause is how long to wait for another daemon that looks for a prefix, which
// takes it a moment.
const turnPause = 2 * time.Millisecond

// takeTurn lets one at a time look for a prefix.
func (s Space) takeTurn(ctx context.Context) (*os.File, error) {
	for {
		f, err := bind(string(s) + "/turn")
		if !errors.Is(err, unix.EADDRINUSE) {
			return f, err
		}
		select {
		case <-time.After(turnPause):
		case <-ctx.Done():
			return nil, banger.Errorf(banger.Unavailable, "cannot find a loopback prefix for this daemon: another daemon is about it and comes to no end")
		}
	}
}

// bind makes a socket of that name in the abstract namespace.
func bind(name string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "@" + name}); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// owners reads who holds what.
func (s Space) owners() (map[Prefix]map[Owner]bool, error) {
	f, err := os.Open("/proc/net/unix")
	if err != nil {
		return nil, banger.Errorf(banger.Unavailable, "cannot see which loopback prefixes are taken: %w", err)
	}
	defer f.Close()
	owners := map[Prefix]map[Owner]bool{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		_, rest, found := strings.Cut(lines.Text(), " @"+string(s)+"/")
		parts := strings.Split(rest, "/")
		if !found || len(parts) != 3 {
			continue
		}
		if p, err := Parse(parts[0]); err == nil {
			if owners[p] == nil {
				owners[p] = map[Owner]bool{}
			}
			owners[p][Owner(parts[1])] = true
		}
	}
	return owners, lines.Err()
}
