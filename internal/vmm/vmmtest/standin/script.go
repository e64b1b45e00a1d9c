package standin

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// StandIn is a program to give a driver in Firecracker's place.
type StandIn struct {
	Binary string

	mu     sync.Mutex
	script func(Call) Verdict
	calls  []Call
	wrong  []Call
}

// New makes one of this test's own program, whose TestMain asks Called. A call that the
// description refuses fails the test, unless it is taken by Wrong.
func New(t testing.TB) *StandIn {
	t.Helper()
	dir, err := os.MkdirTemp("", "banger-") // t.TempDir is too long for the name of a socket
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &StandIn{Binary: filepath.Join(dir, Program)}
	if err := os.Symlink(self, s.Binary); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, control))
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { s.listen(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait() // all that the driver started have ended
		_ = os.RemoveAll(dir)
		for _, c := range s.Wrong() {
			t.Errorf("%s %s is no call of Firecracker's API: %s", c.What, c.Body, c.Wrong)
		}
	})
	return s
}

func (s *StandIn) listen(conn net.Conn) {
	defer conn.Close()
	in, out := json.NewDecoder(conn), json.NewEncoder(conn)
	for {
		var c Call
		if in.Decode(&c) != nil {
			return
		}
		s.mu.Lock()
		s.calls = append(s.calls, c)
		if c.Wrong != "" {
			s.wrong = append(s.wrong, c)
		}
		script := s.script
		s.mu.Unlock()
		verdict := Carry
		if script != nil {
			verdict = script(c)
		}
		if out.Encode(verdict) != nil {
			return
		}
	}
}

// Script has f decide what becomes of each call from now on. It may hold a call up.
func (s *StandIn) Script(f func(Call) Verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = f
}

// Calls gives what came since it was last asked, as in "PUT /vm".
func (s *StandIn) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, c := range s.calls {
		all = append(all, strings.TrimSpace(c.What+" "+c.Body))
	}
	s.calls = nil
	return all
}

// Wrong takes the calls that the description has refused.
func (s *StandIn) Wrong() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := slices.Clone(s.wrong)
	s.wrong = nil
	return taken
}
