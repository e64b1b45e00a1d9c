package guestwire

import (
	"encoding/binary"
	"fmt"
)

// Setup makes a guest this VM's own. It is sent after every boot and after
// every restore, before anything else is asked of the guest.
type Setup struct {
	Hostname  string   `json:"hostname"`
	MachineID string   `json:"machine_id"` // 32 hex digits
	TimeNanos int64    `json:"time_nanos"` // host's clock, Unix nanoseconds, read just before sending
	Entropy   []byte   `json:"entropy"`    // fresh random bytes of the host for the guest kernel's generator
	GuestIP   string   `json:"guest_ip"`   // the VM's address, for /etc/hosts
	Image     string   `json:"image"`      // NAME@sha256:DIGEST, for people to see in the guest
	Env       []string `json:"env"`        // the image's own environment, KEY=VALUE
	WorkDir   string   `json:"work_dir"`   // the image's own working directory, or ""

	// DiskBytes is the size of the writable disk. A guest that was restored
	// hears of a larger one only in a moment, and waits for it. 0 asks for
	// nothing.
	DiskBytes int64 `json:"disk_bytes,omitempty"`

	// Anybody is set for a machine that others will be forked from: what
	// would then be the same in all of them is not even looked at.
	Anybody bool `json:"anybody,omitempty"`

	// Network is what the guest's network card is set to: nil where it has
	// none, or is to keep what it has. Since minor 3.
	Network *Network `json:"network,omitempty"`

	// User runs commands that name nobody; "" is root. Since minor 6.
	User string `json:"user,omitempty"`

	// Trust is the certificates of authorities, in PEM, that the guest is to trust
	// besides the image's: "" takes out those of an earlier setup. Since minor 7.
	Trust string `json:"trust,omitempty"`
}

// Network is a guest's place: alone on a cable, at whose other end is the
// gateway, which is its name server too.
type Network struct {
	MAC        [6]byte `json:"mac"` // by which it finds its card
	Address    [4]byte `json:"address"`
	Gateway    [4]byte `json:"gateway"`
	GatewayMAC [6]byte `json:"gateway_mac"`

	// Drop is set for a machine that was copied or saved while it ran: whoever its
	// connections led to knows nothing of this machine.
	Drop bool `json:"drop,omitempty"`
}

// Append encodes the request.
func (s Setup) Append(b []byte) []byte {
	for _, text := range []string{s.Hostname, s.MachineID, s.GuestIP, s.Image, s.WorkDir, string(s.Entropy)} {
		b = appendString(b, text)
	}
	b = appendList(b, s.Env)
	b = appendInt64(appendInt64(b, s.TimeNanos), s.DiskBytes)
	return appendString(appendString(s.Network.append(append(b, boolByte(s.Anybody))), s.User), s.Trust)
}

func (n *Network) append(b []byte) []byte {
	b = append(b, boolByte(n != nil))
	if n == nil {
		return b
	}
	b = append(append(b, n.MAC[:]...), n.Address[:]...)
	return append(append(append(b, n.Gateway[:]...), n.GatewayMAC[:]...), boolByte(n.Drop))
}

func (d *decoder) network() *Network {
	if len(d.b) == 0 || !d.bool() {
		return nil
	}
	n := &Network{}
	copy(n.MAC[:], d.take(6))
	copy(n.Address[:], d.take(4))
	copy(n.Gateway[:], d.take(4))
	copy(n.GatewayMAC[:], d.take(6))
	n.Drop = d.bool()
	return n
}

// ParseSetup decodes the request. Bytes after it are a newer minor's.
func ParseSetup(b []byte) (Setup, error) {
	d := decoder{b: b}
	s := Setup{Hostname: d.string(), MachineID: d.string(), GuestIP: d.string(), Image: d.string(), WorkDir: d.string()}
	s.Entropy = []byte(d.string())
	s.Env = d.list()
	s.TimeNanos, s.DiskBytes = d.int64(), d.int64()
	s.Anybody = d.bool()
	s.Network = d.network()
	if len(d.b) > 0 {
		s.User = d.string()
	}
	if len(d.b) > 0 {
		s.Trust = d.string()
	}
	if d.bad {
		return Setup{}, fmt.Errorf("%w: bad setup request", ErrProtocol)
	}
	return s, nil
}

// SetupResult is what the guest reports once it is set up.
type SetupResult struct {
	Kernel  string `json:"kernel"`  // uname -r
	BootID  string `json:"boot_id"` // of the guest kernel
	Version string `json:"version"` // of the agent's build

	TimeNanos int64    `json:"time_nanos"`       // the guest's clock as it answers, Unix nanoseconds
	Failed    []string `json:"failed,omitempty"` // what could not be done, one line each
}

// What is kept of a SetupResult: bytes of a name, and lines of Failed.
const (
	maxName   = 256
	maxFailed = 32
)

// Append encodes the result.
func (r SetupResult) Append(b []byte) []byte {
	b = appendString(appendString(appendString(b, r.Kernel), r.BootID), r.Version)
	return appendList(appendInt64(b, r.TimeNanos), r.Failed)
}

// ParseSetupResult decodes the result, as much of it as makes sense. Bytes after it are a
// newer minor's.
func ParseSetupResult(b []byte) (SetupResult, error) {
	d := decoder{b: b}
	r := SetupResult{Kernel: d.string(), BootID: d.string(), Version: d.string(), TimeNanos: d.int64(), Failed: d.list()}
	if d.bad {
		return SetupResult{}, fmt.Errorf("%w: bad setup result", ErrProtocol)
	}
	for _, name := range []*string{&r.Kernel, &r.BootID, &r.Version} {
		*name = clip(*name, maxName)
	}
	r.Failed = clipList(r.Failed, maxFailed, maxLine)
	return r, nil
}

// Clock is a time: the host's to be set, or the guest's as it answers.
type Clock struct {
	TimeNanos int64 `json:"time_nanos"` // Unix nanoseconds
}

// Append encodes the time.
func (c Clock) Append(b []byte) []byte { return appendInt64(b, c.TimeNanos) }

// ParseClock decodes the time.
func ParseClock(b []byte) (Clock, error) {
	d := decoder{b: b}
	c := Clock{d.int64()}
	if d.bad {
		return Clock{}, fmt.Errorf("%w: bad time", ErrProtocol)
	}
	return c, nil
}

func appendInt64(b []byte, n int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(n)) }

// Health says whether the guest works.
type Health struct {
	UptimeSeconds float64  `json:"uptime_seconds"`
	Problems      []string `json:"problems"` // what init could not do, one line each
}

// Booted says whether the guest's own init has finished bringing it up.
type Booted struct {
	Done bool `json:"done"` // false after a long wait
}

// Unattended says which commands run, or ran, with no stream to anybody: those that
// were detached, and those that lost theirs as their machine was saved or copied.
type Unattended struct {
	Running     int   `json:"running"`
	EndedMillis int64 `json:"ended_millis,omitempty"` // since one last ended, 0 if none has
}

// GuestStats is a sample of the guest's use of itself.
type GuestStats struct {
	UptimeSeconds float64 `json:"uptime_seconds"`
	Load1         float64 `json:"load1"`
	MemTotal      int64   `json:"mem_total"`  // bytes
	MemUsed       int64   `json:"mem_used"`   // bytes: total less available
	DiskTotal     int64   `json:"disk_total"` // bytes of the writable disk's file system
	DiskUsed      int64   `json:"disk_used"`  // bytes
	Processes     int     `json:"processes"`
	CPUSeconds    float64 `json:"cpu_seconds"` // all processors, busy
}

// Shutdown ends the machine.
type Shutdown struct {
	TimeoutMillis int64 `json:"timeout_millis"` // processes get TERM at once and KILL at half of it
	Reboot        bool  `json:"reboot"`         // reset instead of power off
}

// StatRequest asks what a path is.
type StatRequest struct {
	Path string `json:"path"`
}

// FileStat says what a path is; Exists is false for one that is not there.
type FileStat struct {
	Exists bool   `json:"exists"`
	Dir    bool   `json:"dir"`
	Mode   uint32 `json:"mode"` // as st_mode
	Size   int64  `json:"size"` // bytes
}

// Changes asks how many files of the guest's own disk were changed since a
// moment, by the guest's clock. 0 asks for a moment to count from: now.
type Changes struct {
	SinceNanos int64 `json:"since_nanos"`
}

// Changed is how many files were changed since TimeNanos.
type Changed struct {
	TimeNanos int64 `json:"time_nanos"`
	Files     int   `json:"files"`
}
