package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// errMonitorClosed is what a command gets whose answer never came because the
// VMM ended.
var errMonitorClosed = errors.New("the VMM closed its monitor")

// monitor is a client of QEMU's QMP: JSON objects, one a line. Commands may be
// issued concurrently.
type monitor struct {
	conn    net.Conn
	onEvent func(event)
	ready   chan struct{} // closed at the greeting
	closed  chan struct{} // closed when the connection ends
	version string        // QEMU's, valid after ready

	mu      sync.Mutex
	lastID  int
	pending map[int]chan message
}

// message is anything QEMU sends: a greeting, an answer or an event.
type message struct {
	QMP    *greeting       `json:"QMP"`
	ID     int             `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *qmpError       `json:"error"`
	event
}

type greeting struct {
	Version struct {
		QEMU struct{ Major, Minor, Micro int } `json:"qemu"`
	} `json:"version"`
}

type event struct {
	Name string          `json:"event"`
	Data json.RawMessage `json:"data"`
}

type qmpError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *qmpError) Error() string { return e.Desc }

// newMonitor reads conn until it ends. onEvent is called from the reading
// goroutine, in the order of events and never after closed.
func newMonitor(conn net.Conn, onEvent func(event)) *monitor {
	m := &monitor{
		conn: conn, onEvent: onEvent,
		ready: make(chan struct{}), closed: make(chan struct{}),
		pending: map[int]chan message{},
	}
	go m.read()
	return m
}

func (m *monitor) read() {
	defer close(m.closed)
	defer m.conn.Close()
	greeted := false
	for in := json.NewDecoder(bufio.NewReader(m.conn)); ; {
		var msg message
		if err := in.Decode(&msg); err != nil {
			return
		}
		switch {
		case msg.QMP != nil:
			if !greeted {
				v := msg.QMP.Version.QEMU
				m.version = fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro)
				close(m.ready)
			}
			greeted = true
		case msg.Name != "":
			m.onEvent(msg.event)
		default:
			m.deliver(msg)
		}
	}
}

func (m *monitor) deliver(msg message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if answer, ok := m.pending[msg.ID]; ok {
		answer <- msg // has room for one
		delete(m.pending, msg.ID)
	}
}

// handshake waits for the greeting and leaves capability negotiation, from
// where on QEMU answers commands and sends events.
func (m *monitor) handshake(ctx context.Context) error {
	select {
	case <-m.ready:
		return m.execute(ctx, "qmp_capabilities", nil, nil)
	case <-m.closed:
		return errMonitorClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// execute runs one command and decodes its answer into result, unless that is
// nil. A command whose ctx ends may still be carried out.
func (m *monitor) execute(ctx context.Context, name string, args, result any) error {
	return m.executeWith(ctx, name, args, result, nil)
}

// executeWith is execute for a command to which a descriptor of file belongs.
// Only one of those may be under way.
func (m *monitor) executeWith(ctx context.Context, name string, args, result any, file *os.File) error {
	id, answer, err := m.send(name, args, file)
	if err != nil {
		return err
	}
	select {
	case msg := <-answer:
		return msg.into(result)
	case <-m.closed:
		select { // the answer may have been the last thing it said
		case msg := <-answer:
			return msg.into(result)
		default:
			return errMonitorClosed
		}
	case <-ctx.Done():
		m.mu.Lock()
		delete(m.pending, id)
		m.mu.Unlock()
		return context.Cause(ctx)
	}
}

func (m *monitor) send(name string, args any, file *os.File) (int, chan message, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lastID++
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        int    `json:"id"`
	}{name, args, m.lastID})
	if err != nil {
		return 0, nil, fmt.Errorf("cannot encode %s: %w", name, err)
	}
	if err := m.write(append(line, '\n'), file); err != nil {
		return 0, nil, errMonitorClosed
	}
	answer := make(chan message, 1)
	m.pending[m.lastID] = answer
	return m.lastID, answer, nil
}

// write sends a line, with a descriptor beside its first byte.
func (m *monitor) write(line []byte, file *os.File) error {
	if socket, ok := m.conn.(*net.UnixConn); ok && file != nil {
		n, _, err := socket.WriteMsgUnix(line, unix.UnixRights(int(file.Fd())), nil)
		if err != nil {
			return err
		}
		line = line[n:]
	}
	_, err := m.conn.Write(line)
	return err
}

func (msg message) into(result any) error {
	if msg.Error != nil {
		return msg.Error
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(msg.Return, result)
}
