package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// handMachine is a VMM that was started by hand. Its sockets are files of its directory, where
// it works.
type handMachine struct {
	dir   string
	cmd   *exec.Cmd
	ended chan struct{}      // closed when it has
	agent io.ReadWriteCloser // once there is one
	monitor
}

// What a machine writes.
const (
	consoleFile = "console"
	logFile     = "log"
)

// start starts the program, which says on stdout what a console does, or nothing.
func (m *handMachine) start(program string, args ...string) error {
	console, err := os.Create(m.path(consoleFile))
	if err != nil {
		return err
	}
	defer console.Close()
	log, err := os.Create(m.path(logFile))
	if err != nil {
		return err
	}
	defer log.Close()
	m.cmd = exec.Command(program, args...)
	m.cmd.Dir, m.cmd.Stdout, m.cmd.Stderr = m.dir, console, log
	if err := m.cmd.Start(); err != nil {
		return err
	}
	m.ended = make(chan struct{})
	go func() {
		_ = m.cmd.Wait()
		close(m.ended)
	}()
	return nil
}

func (m *handMachine) path(name string) string { return filepath.Join(m.dir, name) }

// dial connects to a socket of the machine's, as soon as it is there.
func (m *handMachine) dial(name string) (net.Conn, error) {
	for {
		conn, err := net.Dial("unix", m.path(name))
		if err == nil {
			return conn, nil
		}
		select {
		case <-m.ended:
			return nil, fmt.Errorf("it has ended, and nobody listens at %s", name)
		case <-time.After(time.Millisecond):
		}
	}
}

func (m *handMachine) dialAPI(context.Context, string, string) (net.Conn, error) {
	return m.dial(apiSocket)
}

func (m *handMachine) kill() {
	if m.cmd != nil && m.cmd.Process != nil {
		_ = m.cmd.Process.Kill()
	}
}

// end cuts its power, and returns when it is gone.
func (m *handMachine) end() error {
	if m.ended == nil {
		return nil
	}
	m.kill()
	<-m.ended
	if m.agent != nil {
		_ = m.agent.Close()
	}
	return m.monitor.close()
}

// told adds to an error what the machine said.
func (m *handMachine) told(err error) error {
	if err == nil {
		return nil
	}
	return errors.Join(err, errors.New(tail(m.path(logFile))), errors.New(tail(m.path(consoleFile))))
}
