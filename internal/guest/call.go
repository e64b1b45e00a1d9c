package guest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"banger/internal/guestwire"

	"golang.org/x/sys/unix"
)

// call answers a request in JSON.
func (a *agent) call(s *guestwire.Stream) {
	var c guestwire.Call
	if err := json.Unmarshal(s.Body, &c); err != nil {
		s.Fail("bad_request", "bad call: "+err.Error())
		return
	}
	if c.Method == guestwire.MethodShutdown {
		a.shutdownCall(s, c.Params)
		return
	}
	result, err := a.dispatch(c)
	finish(s, result, err)
}

// shutdownCall answers before the machine ends, also if something could not
// be made safe.
func (a *agent) shutdownCall(s *guestwire.Stream, params json.RawMessage) {
	var p guestwire.Shutdown
	if err := json.Unmarshal(params, &p); err != nil {
		s.Fail("bad_request", "bad parameters: "+err.Error())
		return
	}
	if !a.beginEnd() {
		s.Fail("conflict", "the guest is shutting down already")
		return
	}
	timeout := time.Duration(p.TimeoutMillis) * time.Millisecond
	if a.machine.askInit(cmp.Or(max(0, timeout), defaultTimeout), p.Reboot) {
		finish(s, nil, nil)
		return
	}
	finish(s, nil, a.shutdown(timeout))
	a.machine.end(p.Reboot)
}

func finish(s *guestwire.Stream, result any, err error) {
	var body []byte
	if err == nil {
		body, err = json.Marshal(result)
	}
	answer(s, body, err)
}

func answer(s *guestwire.Stream, body []byte, err error) {
	var f *failure
	switch {
	case err == nil:
		s.Finish(body)
	case errors.As(err, &f):
		s.Fail(f.code, err.Error())
	default:
		s.Fail("internal", err.Error())
	}
}

func (a *agent) dispatch(c guestwire.Call) (any, error) {
	switch c.Method {
	case guestwire.MethodSetup:
		return with(c.Params, a.setup)
	case guestwire.MethodClock:
		return with(c.Params, a.clock)
	case guestwire.MethodTime:
		return guestwire.Clock{TimeNanos: time.Now().UnixNano()}, nil
	case guestwire.MethodHealth:
		return guestwire.Health{UptimeSeconds: uptime().Seconds(), Problems: a.machine.problems()}, nil
	case guestwire.MethodBooted:
		return guestwire.Booted{Done: a.machine.awaitBoot(bootTime)}, nil
	case guestwire.MethodUnattended:
		return a.unattended.read(), nil
	case guestwire.MethodStats:
		return stats(a.machine.diskDir())
	case guestwire.MethodSync:
		unix.Sync()
		return nil, nil
	case guestwire.MethodStat:
		return with(c.Params, stat)
	case guestwire.MethodChanges:
		return with(c.Params, a.changes)
	}
	return nil, failf("unknown_method", "the guest agent knows no method %q", c.Method)
}

// with decodes the parameters for a method.
func with[P, R any](params json.RawMessage, method func(P) (R, error)) (any, error) {
	var p P
	if len(params) > 0 {
		if err := json.Unmarshal(params, &p); err != nil {
			return nil, failf("bad_request", "bad parameters: %w", err)
		}
	}
	return method(p)
}

func (a *agent) setupStream(s *guestwire.Stream) {
	p, err := guestwire.ParseSetup(s.Body)
	if err != nil {
		s.Fail("bad_request", err.Error())
		return
	}
	r, err := a.setup(p)
	answer(s, r.Append(nil), err)
}

func (a *agent) clockStream(s *guestwire.Stream) {
	p, err := guestwire.ParseClock(s.Body)
	if err != nil {
		s.Fail("bad_request", err.Error())
		return
	}
	now, err := a.clock(p)
	answer(s, now.Append(nil), err)
}

func (a *agent) setup(s guestwire.Setup) (guestwire.SetupResult, error) {
	failed, err := a.machine.setup(s)
	a.mu.Lock()
	a.env, a.workDir, a.user = append(trustEnv("", s.Trust), s.Env...), s.WorkDir, s.User
	a.mu.Unlock()
	if err != nil {
		return guestwire.SetupResult{}, err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return guestwire.SetupResult{}, err
	}
	r := guestwire.SetupResult{
		Kernel:  unix.ByteSliceToString(uts.Release[:]),
		Version: a.version,
		Failed:  failed,
	}
	if !s.Anybody { // the kernel makes the id when it is first read
		r.BootID = a.machine.bootID()
	}
	r.TimeNanos = time.Now().UnixNano()
	return r, nil
}

func (a *agent) clock(c guestwire.Clock) (guestwire.Clock, error) {
	err := a.machine.setClock(c.TimeNanos)
	return guestwire.Clock{TimeNanos: time.Now().UnixNano()}, err
}

// stat says what a path is, with links followed; a link that leads nowhere is
// there, as a link.
func stat(r guestwire.StatRequest) (guestwire.FileStat, error) {
	info, err := os.Stat(r.Path)
	if errors.Is(err, os.ErrNotExist) {
		info, err = os.Lstat(r.Path)
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return guestwire.FileStat{}, nil
	}
	if err != nil {
		return guestwire.FileStat{}, fmt.Errorf("cannot look at %s: %w", r.Path, reason(err))
	}
	return guestwire.FileStat{Exists: true, Dir: info.IsDir(), Mode: sysStat(info).Mode, Size: info.Size()}, nil
}

// sysStat is what the system call gave. There is no other file information
// here.
func sysStat(info os.FileInfo) *syscall.Stat_t { return info.Sys().(*syscall.Stat_t) }

func ownerOf(info os.FileInfo) [2]int {
	st := sysStat(info)
	return [2]int{int(st.Uid), int(st.Gid)}
}
