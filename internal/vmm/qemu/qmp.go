package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"banger"
)

// errMonitorClosed is what a command gets whose answer never came because the
// VMM ended.
var errMonitorClosed = errors.New("the VMM closed its monitor")

// maxMessage bounds what QEMU may say at once: it may be its guest's by now. The longest
// that it has to say is the list of its disks' nodes, 14 KB for each layer of a disk that
// has many.
const maxMessage = 4 << 20

// errTooLong is what commands get once QEMU has said more.
var errTooLong error = banger.Errorf(banger.Unavailable, "QEMU sent a message of more than %s, and is not listened to any more", banger.FormatSize(maxMessage)).
	Hint("banger vm restart %s starts another QEMU", banger.ThisVM)

// monitor is a client of QEMU's QMP: JSON objects, one a line. Commands may be
// issued concurrently.
type monitor struct {
	conn    net.Conn
	onEvent func(event)
	ready   chan struct{} // closed at the greeting
	closed  chan struct{} // closed when the connection ends
	version string        // QEMU's, valid after ready
	why     error         // errMonitorClosed or errTooLong, valid after closed

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
	defer m.conn.Close()
	defer close(m.closed) // first: whoever cannot write then finds out why
	greeted := false
	from := &bounded{from: bufio.NewReader(m.conn)}
	for in := json.NewDecoder(from); ; {
		var msg message
		from.left = maxMessage
		if err := in.Decode(&msg); err != nil {
			if m.why = errMonitorClosed; errors.Is(err, errTooLong) {
				m.why = errTooLong
			}
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

// bounded reads so many bytes. Of a message that is longer no end is waited for.
type bounded struct {
	from io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errTooLong
	}
	n, err := b.from.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
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
		return m.why
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
			return m.why
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
		return 0, nil, m.ended()
	}
	answer := make(chan message, 1)
	m.pending[m.lastID] = answer
	return m.lastID, answer, nil
}

// ended is why nothing can be sent.
func (m *monitor) ended() error {
	select {
	case <-m.closed:
		return m.why
	default:
		return errMonitorClosed // as the reader will find
	}
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
