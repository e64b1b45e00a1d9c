package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"banger/internal/vmm"
)

// handQEMU is QEMU, by its command line and its monitor.
type handQEMU struct{ *hand }

// Names in a machine's directory.
const (
	monitorSocket = "monitor"
	agentSocket   = "agent"
)

func (q handQEMU) boot(m *handMachine, saved bool) error {
	memory := fmt.Sprintf("memory-backend-ram,id=ram,size=%dM", q.launch.Machine.MemoryMiB)
	if saved {
		memory = q.memoryFile() + ",share=on"
	}
	c := q.launch.Machine
	err := m.start(c.Binary, q.arguments("-object", memory, "-kernel", c.Kernel, "-initrd", c.Initrd, "-append", q.cmdline)...)
	if err != nil {
		return err
	}
	return q.join(m)
}

func (q handQEMU) memoryFile() string {
	return fmt.Sprintf("memory-backend-file,id=ram,size=%dM,mem-path=%s", q.launch.Machine.MemoryMiB, q.savedMemory())
}

func (q handQEMU) arguments(more ...string) []string {
	c := q.launch.Machine
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "microvm,acpi=on,pcie=off,usb=off,graphics=off,rtc=on,memory-backend=ram",
		"-smp", strconv.Itoa(c.VCPU), "-m", fmt.Sprint(c.MemoryMiB, "M"),
		"-global", "virtio-mmio.force-legacy=off", "-global", "migration.store-global-state=off", "-global", "migration.announce-rounds=0",
		"-qmp", "unix:" + monitorSocket + ",server=on,wait=off",
		"-serial", "stdio",
		"-chardev", "socket,id=agent,path=" + agentSocket + ",server=on,wait=off",
		"-device", "virtio-serial-device,max_ports=2", "-device", "virtserialport,chardev=agent,name=" + vmm.AgentPort,
		"-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-device,rng=rng",
		"-netdev", "user,id=net", "-device", fmt.Sprintf("virtio-net-device,netdev=net,mac=%s,host_mtu=%d,ctrl_vq=off,guest_announce=off", c.NIC.MAC, c.NIC.MTU),
	}
	if c.Accel == vmm.KVM {
		args = append(args, "-accel", "kvm", "-cpu", "host")
	} else {
		args = append(args, "-accel", "tcg,tb-size=64", "-cpu", "max,-erms,-fsrm")
	}
	for _, d := range q.disks() {
		readOnly := map[bool]string{true: "on", false: "off"}[d.ReadOnly]
		args = append(args,
			"-blockdev", fmt.Sprintf("driver=raw,node-name=%s-disk,read-only=%s,file.driver=file,file.filename=%s", d.Serial, readOnly, d.Path),
			"-device", fmt.Sprintf("virtio-blk-device,drive=%s-disk,serial=%s", d.Serial, d.Serial))
	}
	return append(args, more...)
}

func (q handQEMU) join(m *handMachine) error {
	conn, err := m.dial(agentSocket)
	if err == nil {
		m.agent = conn
	}
	return err
}

// save has QEMU write all but the memory, which is a file.
func (q handQEMU) save(m *handMachine) error {
	err := m.execute(
		qmp{"stop", nil},
		ignoreShared,
		qmp{"migrate", object{"uri": "exec:cat >" + q.savedState()}},
	)
	for err == nil {
		var now struct{ Status string }
		if err = m.query("query-migrate", &now); err != nil {
			return err
		}
		switch now.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return errors.New("the migration has " + now.Status)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// ignoreShared leaves memory out of a migration that is a file.
var ignoreShared = qmp{"migrate-set-capabilities", object{
	"capabilities": []object{{"capability": "x-ignore-shared", "state": true}},
}}

func (q handQEMU) load(m *handMachine) error {
	err := m.start(q.launch.Machine.Binary, q.arguments("-object", q.memoryFile()+",share=off", "-incoming", "defer")...)
	if err != nil {
		return err
	}
	if err := m.execute(ignoreShared, qmp{"migrate-incoming", object{"uri": "exec:cat " + q.savedState()}}); err != nil {
		return err
	}
	return q.join(m)
}

// qmp is a command of QEMU's monitor.
type qmp struct {
	Execute   string `json:"execute"`
	Arguments object `json:"arguments,omitempty"`
}

// monitor is how a machine is spoken to: QEMU's, or Firecracker's.
type monitor struct {
	qmp net.Conn
	in  *json.Decoder
	api *http.Client
}

func (m *monitor) close() error {
	if m.api != nil {
		m.api.CloseIdleConnections()
	}
	if m.qmp == nil {
		return nil
	}
	return m.qmp.Close()
}

// execute has QEMU do one after the other.
func (m *handMachine) execute(commands ...qmp) error {
	for _, c := range commands {
		if _, err := m.ask(c); err != nil {
			return err
		}
	}
	return nil
}

func (m *handMachine) query(command string, into any) error {
	said, err := m.ask(qmp{command, nil})
	if err != nil {
		return err
	}
	return json.Unmarshal(said, into)
}

func (m *handMachine) ask(c qmp) (json.RawMessage, error) {
	if m.qmp == nil {
		conn, err := m.dial(monitorSocket)
		if err != nil {
			return nil, err
		}
		m.qmp, m.in = conn, json.NewDecoder(conn)
		if _, err := m.ask(qmp{"qmp_capabilities", nil}); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	if _, err := m.qmp.Write(text); err != nil {
		return nil, err
	}
	return answer(m.in, c.Execute)
}

// answer is what is returned; a greeting and events come between.
func answer(in *json.Decoder, to string) (json.RawMessage, error) {
	for {
		var said struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
		}
		switch err := in.Decode(&said); {
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("%s: QEMU has ended", to)
		case err != nil:
			return nil, err
		case said.Error != nil:
			return nil, fmt.Errorf("%s: %s", to, said.Error.Desc)
		case said.Return != nil:
			return said.Return, nil
		}
	}
}
