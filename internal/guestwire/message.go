package guestwire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
)

// Kind says what a stream is for.
type Kind uint8

// The kinds of streams. Those from KindShim on are answered by the shim and
// never reach a guest.
const (
	// KindExec runs a command. Body: Exec. Channels: Stdin towards the
	// guest, Stdout and Stderr from it; with a pty everything comes on
	// Stdout. Controls: ControlSignal, ControlResize, ControlCloseOutput.
	// Result: Exit, once the command has ended; what it left in its pipes
	// comes before. A RESET hangs the command's process group up and kills
	// it after 10 s.
	KindExec Kind = 1
	// KindCall is a request and an answer in JSON. Body: Call. Result: JSON.
	KindCall Kind = 2
	// KindPut unpacks a tar stream, read from channel 0. Body: Copy. Result:
	// empty.
	KindPut Kind = 3
	// KindGet packs a path as a tar stream onto channel 0. Body: Copy.
	// Result: empty.
	KindGet Kind = 4
	// KindSetup makes the guest this VM's own, before anything else is asked of
	// it. Body: Setup. Result: SetupResult. Since minor 1; before, and still,
	// it is MethodSetup of KindCall. A guest that was just restored answers
	// this one in half the time, since it has no JSON to find its way through.
	KindSetup Kind = 5
	// KindClock sets the guest's clock and no more. Body: Clock. Result:
	// Clock. Since minor 1, and MethodClock of KindCall.
	KindClock Kind = 6
	// KindDial connects to a socket inside the guest. Body: Target. Channel: 0,
	// both ways; its EOF shuts down one direction. The guest says
	// ControlConnected once the connection is there. Result: empty, once both
	// directions have ended; a connection that breaks, or cannot be made, is a
	// failure: not_found where there is no such name or path, unavailable
	// where nobody accepts. A RESET breaks the connection. Since minor 2.
	KindDial Kind = 7
	// KindListeners tells which TCP sockets of the guest listen: all of them
	// at once, and again at each change, for as long as the stream is there.
	// Body: empty. Channel: 0, from the guest, on which each telling is a u32
	// length and that many bytes (see ReadListeners). Result: only
	// if it fails. Since minor 4.
	KindListeners Kind = 8
	// KindListen listens inside the guest for as long as the stream is there.
	// Body: Listen. The guest says ControlConnected with the address it
	// listens at, and ControlIncoming for each connection. Result: an
	// error. Since minor 5.
	KindListen Kind = 9
	// KindAccept takes one of those connections: what follows is as with
	// KindDial. Body: u32, its number; one nobody waits with is not_found. Since
	// minor 5.
	KindAccept Kind = 10

	KindShim Kind = 64
)

// Channels of KindExec; the others use channel 0.
const (
	Stdin  uint8 = 0
	Stdout uint8 = 1
	Stderr uint8 = 2
)

// ControlCode says what a control is.
type ControlCode uint8

// The controls.
const (
	ControlSignal ControlCode = 1 // body: u8 signal number, for the command's process group
	ControlResize ControlCode = 2 // body: u16 rows, u16 columns, for its pty

	// ControlCloseOutput says that nobody reads one output any more, as
	// after "| head". Body: u8 channel. The agent closes its end of the pipe,
	// so that the command gets SIGPIPE when it writes on.
	ControlCloseOutput ControlCode = 3

	// ControlConnected comes from the guest: a KindDial has its connection, a
	// KindListen its socket.
	ControlConnected ControlCode = 4
	// ControlIncoming comes from the guest: a connection waits for a
	// KindAccept. Body: u32, its number.
	ControlIncoming ControlCode = 5
)

// Exec asks for a command to be run. Only Argv is required.
type Exec struct {
	Argv  []string // not empty; Argv[0] is looked up in PATH of Env
	Env   []string // KEY=VALUE, on top of the guest's own defaults
	Dir   string   // "" is the user's home
	User  string   // name or number; "" is root
	UID   uint32   // for a User the image lacks: the id it is created with; 0 picks one
	TTY   bool     // give it a pty of Rows × Cols
	Rows  uint16
	Cols  uint16
	Stdin bool // false: stdin is /dev/null

	// Detach leaves the command running by itself, without a terminal, input
	// or outputs: the result comes once it was started, with status 0.
	Detach bool

	// Program says how the program is found. An agent that does not know it
	// takes Argv as it is.
	Program Program

	// Under is a command to run this one under, such as "mise exec --", where
	// the guest has it. An agent that does not know it runs Argv as it is.
	Under []string
}

// Program says which program an Exec means.
type Program uint8

// The programs.
const (
	ProgramNamed Program = 0 // Argv[0]

	// ProgramShell is the user's own shell where the guest has it, else
	// Argv[0]. It begins in the user's home, as the next two do.
	ProgramShell Program = 1
	ProgramLogin Program = 2 // the same as a login shell
	ProgramAgent Program = 3 // the agent's binary, in a process of its own
)

// Append encodes the request.
func (e Exec) Append(b []byte) []byte {
	b = appendList(appendList(b, e.Argv), e.Env)
	b = appendString(appendString(b, e.Dir), e.User)
	b = binary.BigEndian.AppendUint32(b, e.UID)
	b = append(b, boolByte(e.TTY), boolByte(e.Stdin))
	b = binary.BigEndian.AppendUint16(b, e.Rows)
	b = binary.BigEndian.AppendUint16(b, e.Cols)
	under := len(e.Under) > 0
	if e.Detach || e.Program != ProgramNamed || under {
		b = append(b, boolByte(e.Detach))
	}
	if e.Program != ProgramNamed || under {
		b = append(b, byte(e.Program))
	}
	if under {
		b = appendList(b, e.Under)
	}
	return b
}

// ParseExec decodes the request. Bytes after it are a newer minor's.
func ParseExec(b []byte) (Exec, error) {
	d := decoder{b: b}
	e := Exec{Argv: d.list(), Env: d.list(), Dir: d.string(), User: d.string(), UID: d.uint32()}
	e.TTY, e.Stdin = d.bool(), d.bool()
	e.Rows, e.Cols = d.uint16(), d.uint16()
	e.Detach = len(d.b) > 0 && d.bool()
	if len(d.b) > 0 {
		e.Program = Program(d.byte())
	}
	if len(d.b) > 0 {
		e.Under = d.list()
	}
	if d.bad || len(e.Argv) == 0 {
		return Exec{}, fmt.Errorf("%w: bad exec request", ErrProtocol)
	}
	return e, nil
}

// Exit is how a command ended.
type Exit struct {
	Status  uint8  // as a shell gives it: 128+n for a signal, 126 and 127 if it could not be run
	Message string // why it could not be run, or ""
	Signal  uint8  // the one that ended it, or 0; older agents leave it out
}

// Append encodes the exit.
func (e Exit) Append(b []byte) []byte {
	b = appendString(append(b, e.Status), e.Message)
	if e.Signal != 0 {
		b = append(b, e.Signal)
	}
	return b
}

// ParseExit decodes the exit.
func ParseExit(b []byte) (Exit, error) {
	if len(b) < 1 {
		return Exit{}, fmt.Errorf("%w: empty exit", ErrProtocol)
	}
	d := decoder{b: b[1:]}
	e := Exit{Status: b[0], Message: d.string()}
	if len(d.b) > 0 {
		e.Signal = d.byte()
	}
	if d.bad {
		return Exit{}, fmt.Errorf("%w: bad exit", ErrProtocol)
	}
	return e, nil
}

// Target is a socket inside the guest that something connects to.
type Target struct {
	Network string // "tcp" or "unix"
	Address string // HOST:PORT, of which the guest resolves the host; or a path
}

// Append encodes the request.
func (t Target) Append(b []byte) []byte {
	return appendString(appendString(b, t.Network), t.Address)
}

// ParseTarget decodes the request. Bytes after it are a newer minor's.
func ParseTarget(b []byte) (Target, error) {
	d := decoder{b: b}
	t := Target{Network: d.string(), Address: d.string()}
	if d.bad {
		return Target{}, fmt.Errorf("%w: bad request to connect", ErrProtocol)
	}
	return t, nil
}

// SignalControl makes a ControlSignal.
func SignalControl(signal uint8) Control { return Control{ControlSignal, []byte{signal}} }

// ResizeControl makes a ControlResize.
func ResizeControl(rows, cols uint16) Control {
	b := binary.BigEndian.AppendUint16(nil, rows)
	return Control{ControlResize, binary.BigEndian.AppendUint16(b, cols)}
}

// CloseOutputControl makes a ControlCloseOutput.
func CloseOutputControl(channel uint8) Control {
	return Control{ControlCloseOutput, []byte{channel}}
}

// Output reads a ControlCloseOutput.
func (c Control) Output() (channel uint8, ok bool) {
	if c.Code != ControlCloseOutput || len(c.Body) < 1 {
		return 0, false
	}
	return c.Body[0], true
}

// Signal reads a ControlSignal.
func (c Control) Signal() (signal uint8, ok bool) {
	if c.Code != ControlSignal || len(c.Body) < 1 {
		return 0, false
	}
	return c.Body[0], true
}

// Resize reads a ControlResize.
func (c Control) Resize() (rows, cols uint16, ok bool) {
	if c.Code != ControlResize || len(c.Body) < 4 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(c.Body), binary.BigEndian.Uint16(c.Body[2:]), true
}

// Call names a method and carries its argument.
type Call struct {
	Method string          `json:"method"`
	Params json.RawMessage `json:"params,omitempty"`
}

// Methods of the guest agent. Their parameter and result types are in
// call.go; a method without one of them takes or gives null.
const (
	MethodSetup      = "setup"      // Setup → SetupResult; makes the guest this VM's own
	MethodClock      = "clock"      // Clock → Clock; sets the guest's clock and no more
	MethodTime       = "time"       // → Clock; the guest's clock as it answers
	MethodHealth     = "health"     // → Health
	MethodStats      = "stats"      // → GuestStats
	MethodSync       = "sync"       // flushes all file systems
	MethodShutdown   = "shutdown"   // Shutdown; answers once the file systems are read-only, then ends the machine
	MethodStat       = "stat"       // StatRequest → FileStat
	MethodChanges    = "changes"    // Changes → Changed
	MethodUnattended = "unattended" // → Unattended
	MethodBooted     = "booted"     // → Booted; answers once the guest's own init is done, or after a minute
)

// Copy asks for a tar stream in or out.
type Copy struct {
	Path      string `json:"path"`       // absolute, in the guest; for KindPut the directory to unpack in
	Name      string `json:"name"`       // for KindGet: the name of the top entry instead of the base of Path
	KeepOwner bool   `json:"keep_owner"` // numeric owners of the stream instead of the user's
	User      string `json:"user"`       // whose the files become; "" is root
	Follow    bool   `json:"follow"`     // for KindGet: follow Path if it is a symlink

	// For KindGet: OneSystem leaves out what is mounted below Path, Without these
	// files and what is in these directories.
	OneSystem bool     `json:"one_system,omitempty"`
	Without   []string `json:"without,omitempty"`
}

// Failure is a request that the other side refused or failed. Codes are those
// of the API, hints are remedies.
type Failure struct {
	Code    string
	Message string
	Hints   []string
}

func (f *Failure) Error() string { return f.Message }

func (f *Failure) append(b []byte) []byte {
	return appendList(appendString(appendString(b, f.Code), f.Message), f.Hints)
}

func parseFailure(b []byte) *Failure {
	d := decoder{b: b}
	f := &Failure{Code: d.string(), Message: d.string()}
	if d.bad {
		return &Failure{Code: "internal", Message: "the guest agent failed without a reason"}
	}
	f.Hints = clipList(d.list(), 8, maxLine) // none is as good as bad ones
	f.Message = clip(f.Message, 16*maxLine)  // may hold some of the console
	return f
}

// maxLine is what is kept of a line that the peer writes for people, in bytes.
const maxLine = 1 << 10

func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// clipList keeps so many lines, and so much of each.
func clipList(lines []string, most, length int) []string {
	lines = lines[:min(len(lines), most)]
	for i := range lines {
		lines[i] = clip(lines[i], length)
	}
	return lines
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

func appendList(b []byte, list []string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// decoder takes values off the front of b; bad remembers that something was
// missing, so that callers check once.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.b) {
		d.bad = true
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) uint32() uint32 {
	if v := d.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (d *decoder) int64() int64 {
	if v := d.take(8); v != nil {
		return int64(binary.BigEndian.Uint64(v))
	}
	return 0
}

func (d *decoder) uint16() uint16 {
	if v := d.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (d *decoder) byte() byte {
	if v := d.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *decoder) bool() bool { return d.byte() != 0 }

func (d *decoder) string() string { return string(d.take(int(d.uint32()))) }

func (d *decoder) list() []string {
	n := int(d.uint32())
	if n > len(d.b)/4 { // each item takes four bytes at least
		d.bad = true
		return nil
	}
	list := make([]string, 0, n)
	for range n {
		list = append(list, d.string())
	}
	return list
}
