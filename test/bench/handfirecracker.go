package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"banger/internal/tether"
)

// handFirecracker is Firecracker, told over its socket what one tells it with curl.
type handFirecracker struct{ *hand }

// Names in a machine's directory.
const (
	apiSocket   = "api"
	vsockSocket = "vsock"
)

// agentVsock is the port that the guest's kernel command line names.
const agentVsock = 52

// object is JSON.
type object map[string]any

func (f handFirecracker) boot(m *handMachine, _ bool) error {
	if err := m.start(f.launch.Machine.Binary, "--api-sock", apiSocket); err != nil {
		return err
	}
	for _, put := range f.description() {
		if err := m.tell("PUT", put.path, put.body); err != nil {
			return err
		}
	}
	return f.join(m)
}

// call is one that is told.
type call struct {
	path string
	body object
}

func (f handFirecracker) description() []call {
	c := f.launch.Machine
	calls := []call{
		{"/machine-config", object{"vcpu_count": c.VCPU, "mem_size_mib": c.MemoryMiB}},
		{"/boot-source", object{"kernel_image_path": c.Kernel, "initrd_path": c.Initrd, "boot_args": f.cmdline}},
	}
	for i, d := range f.disks() {
		id := fmt.Sprintf("disk%d", i)
		calls = append(calls, call{"/drives/" + id, object{
			"drive_id": id, "path_on_host": d.Path, "is_root_device": false, "is_read_only": d.ReadOnly, "cache_type": "Writeback",
		}})
	}
	if f.tap != "" {
		calls = append(calls, call{"/network-interfaces/card", object{
			"iface_id": "card", "guest_mac": c.NIC.MAC, "host_dev_name": f.tap, "mtu": c.NIC.MTU,
		}})
	}
	return append(calls,
		call{"/vsock", object{"guest_cid": 3, "uds_path": vsockSocket}},
		call{"/entropy", object{}},
		call{"/actions", object{"action_type": "InstanceStart"}})
}

// join connects to the agent, as often as it takes: nobody listens at first.
func (f handFirecracker) join(m *handMachine) error {
	stream := tether.NewHost()
	m.agent = stream
	go stream.Keep(f.ctx, func(context.Context) (io.ReadWriteCloser, error) { return f.connect(m) })
	return nil
}

// connect asks Firecracker for a connection to the agent's port, which it says on a line.
func (f handFirecracker) connect(m *handMachine) (io.ReadWriteCloser, error) {
	conn, err := m.dial(vsockSocket)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(conn, "CONNECT %d\n", agentVsock)
	for answer := make([]byte, 1); err == nil && answer[0] != '\n'; {
		_, err = io.ReadFull(conn, answer)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// save has Firecracker write what it has of the memory, which is a file with holes.
func (f handFirecracker) save(m *handMachine) error {
	if err := m.tell("PATCH", "/vm", object{"state": "Paused"}); err != nil {
		return err
	}
	return m.tell("PUT", "/snapshot/create", object{
		"snapshot_type": "Diff", "snapshot_path": f.savedState(), "mem_file_path": f.savedMemory(),
	})
}

func (f handFirecracker) load(m *handMachine) error {
	if err := m.start(f.launch.Machine.Binary, "--api-sock", apiSocket); err != nil {
		return err
	}
	err := m.tell("PUT", "/snapshot/load", object{
		"snapshot_path": f.savedState(), "mem_backend": object{"backend_type": "File", "backend_path": f.savedMemory()}, "resume_vm": true,
	})
	if err != nil {
		return err
	}
	return f.join(m)
}

// tell is one call of the API.
func (m *handMachine) tell(method, path string, body object) error {
	if m.api == nil {
		m.api = &http.Client{Transport: &http.Transport{DialContext: m.dialAPI, DisableCompression: true}}
	}
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, "http://localhost"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	resp, err := m.api.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s", method, path, said)
	}
	return err
}
