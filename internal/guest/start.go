package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"banger/internal/guestwire"

	"golang.org/x/sys/unix"
)

type processAttr = syscall.SysProcAttr

// notRun says why a command could not be run, with a shell's status for it.
type notRun struct {
	status  uint8
	message string
}

func (n *notRun) Error() string { return n.message }

// start starts a command for a stream.
func (a *agent) start(s *guestwire.Stream, r guestwire.Exec) (*command, error) {
	a.mu.Lock()
	image, workDir, ending := a.env, a.workDir, a.ending
	if r.User == "" {
		r.User = a.user
	}
	a.mu.Unlock()
	if ending {
		return nil, failf("not_running", "cannot run %s: the guest is shutting down", r.Argv[0])
	}
	u, err := a.machine.lookup(r.User, r.UID)
	if err != nil {
		return nil, err
	}
	if r.Program != guestwire.ProgramNamed {
		workDir = ""
	}
	dir, err := directory(r.Dir, workDir, u.home)
	if err != nil {
		return nil, err
	}
	env := environment(image, u, dir, r)
	path, err := a.program(&r, u, dir, env)
	if err != nil {
		return nil, err
	}
	c := &command{procs: a.procs, stream: s}
	theirs, err := c.connect(r)
	if err != nil {
		c.disconnect()
		return nil, err
	}
	c.child, err = a.fork(path, r, &syscall.ProcAttr{Dir: dir, Env: env, Files: theirs}, u)
	for _, fd := range unique(theirs) {
		_ = unix.Close(int(fd))
	}
	if err != nil {
		c.disconnect()
		return nil, whyNot(r.Argv[0], err)
	}
	return c, nil
}

// fork starts the process, in a session of its own.
func (a *agent) fork(path string, r guestwire.Exec, attr *syscall.ProcAttr, u user) (*child, error) {
	attr.Sys = &processAttr{Setsid: true, Setctty: r.TTY && !r.Detach, Credential: u.credential()}
	a.forking.Lock()
	defer a.forking.Unlock()
	defer a.machine.prepare(attr.Sys)()
	return a.procs.start(func() (int, error) { return syscall.ForkExec(path, r.Argv, attr) })
}

// connect makes the pipes or the pty and gives the child's ends of them.
func (c *command) connect(r guestwire.Exec) (theirs []uintptr, err error) {
	switch {
	case r.Detach:
		fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		return []uintptr{uintptr(fd), uintptr(fd), uintptr(fd)}, err
	case r.TTY:
		return c.connectTerminal(r)
	}
	c.ended = make(chan *output, 2)
	in, err := c.input(r.Stdin)
	if err != nil {
		return nil, err
	}
	theirs = append(theirs, in)
	for _, channel := range []uint8{guestwire.Stdout, guestwire.Stderr} {
		ours, their, err := pipe()
		if err != nil {
			return theirs, err
		}
		theirs = append(theirs, their)
		c.addOutput(channel, nonblocking(ours))
	}
	return theirs, nil
}

func (c *command) addOutput(channel uint8, from *os.File) {
	c.outputs = append(c.outputs, &output{
		channel: channel, from: from, to: c.stream.Writer(channel), done: make(chan struct{}),
	})
}

func (c *command) input(wanted bool) (their uintptr, err error) {
	if !wanted {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return uintptr(fd), err
	}
	their, ours, err := pipe()
	if err == nil {
		c.stdin = nonblocking(ours)
	}
	return their, err
}

// disconnect closes our ends.
func (c *command) disconnect() {
	if c.stdin != nil {
		_ = c.stdin.Close()
	}
	for _, o := range c.outputs {
		_ = o.from.Close()
	}
}

func pipe() (read, write uintptr, err error) {
	var p [2]int
	err = unix.Pipe2(p[:], unix.O_CLOEXEC)
	return uintptr(p[0]), uintptr(p[1]), err
}

// nonblocking makes a file of our end only: the child's end is another open
// file and stays as programs expect it.
func nonblocking(fd uintptr) *os.File {
	_ = unix.SetNonblock(int(fd), true)
	return os.NewFile(fd, "command")
}

func unique(fds []uintptr) []uintptr {
	var out []uintptr
	for i, fd := range fds {
		if i == 0 || fd != fds[i-1] {
			out = append(out, fd)
		}
	}
	return out
}

// directory is where a command begins.
func directory(asked, image, home string) (string, error) {
	if asked != "" {
		dir := asked
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(home, dir)
		}
		if info, err := os.Stat(dir); err != nil {
			return "", &notRun{126, fmt.Sprintf("cannot change to %s: %v", asked, reason(err))}
		} else if !info.IsDir() {
			return "", &notRun{126, fmt.Sprintf("cannot change to %s: it is not a directory", asked)}
		}
		return dir, nil
	}
	for _, dir := range []string{image, home} {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir, nil
		}
	}
	return "/", nil
}

// program finds what a request runs, and calls it by the name that it expects.
func (a *agent) program(r *guestwire.Exec, u user, dir string, env []string) (string, error) {
	switch shell := r.Program == guestwire.ProgramShell || r.Program == guestwire.ProgramLogin; {
	case r.Program == guestwire.ProgramAgent:
		return a.machine.program()
	case shell && executable(u.shell):
		r.Argv[0] = filepath.Base(u.shell)
		if r.Program == guestwire.ProgramLogin {
			r.Argv[0] = "-" + r.Argv[0]
		}
		return u.shell, nil
	}
	search := getenv(env, "PATH")
	if len(r.Under) > 0 {
		if path, err := findProgram(r.Under[0], dir, search); err == nil {
			r.Argv = append(r.Under, r.Argv...)
			return path, nil
		}
	}
	return findProgram(r.Argv[0], dir, search)
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// findProgram finds a command as a shell does.
func findProgram(name, dir, search string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = dir + "/" + name
		}
		return name, nil // the kernel says what is wrong with it
	}
	var found error = &notRun{127, name + ": command not found"}
	for _, place := range strings.Split(search, ":") {
		if !filepath.IsAbs(place) {
			place = filepath.Join(dir, place)
		}
		path := place + "/" + name
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
			continue
		}
		if st.Mode&0o111 != 0 {
			return path, nil
		}
		found = &notRun{126, path + ": permission denied"}
	}
	return "", found
}

// whyNot makes a shell's verdict of the kernel's.
func whyNot(name string, err error) error {
	switch {
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOMEM):
		return failf("unavailable", "cannot run %s: %w", name, err)
	case errors.Is(err, unix.ENOENT) && exists(name):
		return &notRun{127, name + ": its interpreter is not there"}
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return &notRun{127, name + ": no such file or directory"}
	}
	if info, serr := os.Stat(name); serr == nil && info.IsDir() {
		return &notRun{126, name + ": is a directory"}
	}
	return &notRun{126, fmt.Sprintf("%s: %v", name, err)}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// reason is err without the operation and path around it.
func reason(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
