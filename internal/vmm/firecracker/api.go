package firecracker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"banger"
)

// request is one call of Firecracker's API: JSON over HTTP over a unix socket.
type request struct {
	method, path string
	body         any
}

// What is told, with the names it has there. No field is left out by accident: those
// that Firecracker may do without are pointers or say omitempty.
type (
	machineConfig struct {
		VCPUs     int   `json:"vcpu_count"`
		MemoryMiB int64 `json:"mem_size_mib"`
	}
	bootSource struct {
		Kernel  string `json:"kernel_image_path"`
		Initrd  string `json:"initrd_path,omitempty"`
		Cmdline string `json:"boot_args"`
	}
	drive struct {
		ID       string `json:"drive_id"`
		Path     string `json:"path_on_host"`
		Root     bool   `json:"is_root_device"`
		ReadOnly bool   `json:"is_read_only"`
		Cache    string `json:"cache_type"`
	}
	driveUpdate struct {
		ID   string `json:"drive_id"`
		Path string `json:"path_on_host"`
	}
	networkInterface struct {
		ID   string `json:"iface_id"`
		MAC  string `json:"guest_mac"`
		Host string `json:"host_dev_name"`
		MTU  int    `json:"mtu"`
	}
	vsock struct {
		CID  uint32 `json:"guest_cid"`
		Path string `json:"uds_path"`
	}
	entropy struct{}
	action  struct {
		Type string `json:"action_type"`
	}
	vmState struct {
		State string `json:"state"`
	}
	snapshotCreate struct {
		Type   string `json:"snapshot_type"`
		State  string `json:"snapshot_path"`
		Memory string `json:"mem_file_path"`
	}
	snapshotLoad struct {
		State    string            `json:"snapshot_path"`
		Memory   memoryBackend     `json:"mem_backend"`
		Resume   bool              `json:"resume_vm"`
		Networks []networkOverride `json:"network_overrides,omitempty"`
		Vsock    vsockOverride     `json:"vsock_override"`
	}
	memoryBackend struct {
		Type string `json:"backend_type"`
		Path string `json:"backend_path"`
	}
	networkOverride struct {
		ID   string `json:"iface_id"`
		Host string `json:"host_dev_name"`
	}
	vsockOverride struct {
		Path string `json:"uds_path"`
	}
)

// States of a machine as vmState and instance name them.
const (
	paused  = "Paused"
	resumed = "Resumed"
)

// instance is what Firecracker says of itself.
type instance struct {
	State   string `json:"state"` // "Not started", "Running" or "Paused"
	Version string `json:"vmm_version"`
}

// fault is what Firecracker refused, in its words.
type fault struct {
	what   string
	status int
	text   string
}

func (f *fault) Error() string {
	return fmt.Sprintf("Firecracker refused %s: %s (%d)", f.what, f.text, f.status)
}

// code tells a description that is refused from a host on which it cannot be followed.
func (f *fault) code() banger.Code {
	if strings.HasSuffix(f.what, "/actions") {
		return banger.Unavailable
	}
	return banger.BadRequest
}

// errNoAnswer is what a call gets on which no answer came: Firecracker has ended, or does
// what it must not.
var errNoAnswer = errors.New("no answer from Firecracker")

// client speaks to one Firecracker. It answers one call at a time.
type client struct{ http *http.Client }

func newClient(dial func(context.Context) (net.Conn, error)) client {
	return client{&http.Client{Transport: &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableCompression: true,
		MaxIdleConns:       1,
	}}}
}

func (c client) close() { c.http.CloseIdleConnections() }

func (c client) do(ctx context.Context, r request) error { return c.ask(ctx, r, nil) }

// maxAnswer is far above what any answer needs.
const maxAnswer = 1 << 20

// ask is do with an answer.
func (c client) ask(ctx context.Context, r request, answer any) error {
	var body io.Reader
	if r.body != nil {
		text, err := json.Marshal(r.body)
		if err != nil {
			return fmt.Errorf("cannot encode %s: %w", r.path, err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, "http://localhost"+r.path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return noAnswer(ctx, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil:
		return noAnswer(ctx, err)
	case resp.StatusCode/100 != 2:
		return &fault{r.method + " " + r.path, resp.StatusCode, faultText(text)}
	case answer == nil:
		return nil
	}
	return json.Unmarshal(text, answer)
}

func noAnswer(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return banger.Errorf(banger.Cancelled, "%w", context.Cause(ctx))
	}
	return fmt.Errorf("%w: %w", errNoAnswer, err)
}

func faultText(body []byte) string {
	var f struct {
		Message string `json:"fault_message"`
	}
	if json.Unmarshal(body, &f) != nil || f.Message == "" {
		return fmt.Sprintf("%.200q", body)
	}
	return f.Message
}

// pollEvery is how often a Firecracker that has just been started is asked whether it
// listens: nothing says so.
const pollEvery = time.Millisecond

// await waits until Firecracker answers, or has ended.
func (c client) await(ctx context.Context, ended <-chan struct{}) (who instance, err error) {
	for {
		err = c.ask(ctx, request{"GET", "/", nil}, &who)
		if !errors.Is(err, errNoAnswer) {
			return who, err
		}
		select {
		case <-ended:
			return who, err
		case <-ctx.Done():
			return who, banger.Errorf(banger.Cancelled, "%w", context.Cause(ctx))
		case <-time.After(pollEvery):
		}
	}
}
