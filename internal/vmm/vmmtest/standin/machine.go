package standin

import (
	"cmp"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// errReset ends a machine whose guest has reset it.
var errReset = errors.New("the guest has reset the machine")

// machine is what the calls make. The server carries out one at a time.
type machine struct {
	ended  chan error // one end
	broken bool       // a snapshot was half loaded: the process ends

	boots  bool // what was said is of a machine that boots
	about  about
	kernel string
	initrd string
	args   string

	guest     *guest // nil before the start
	halted    bool
	announced bool // the guest will hear that its vsock was reset
}

// about is what a snapshot says of a machine's devices, beside its guest's own.
type about struct {
	Memory int64    `json:"memory"` // bytes
	VCPUs  int      `json:"vcpus"`
	Drives []*drive `json:"drives"`
	Cards  []*card  `json:"cards"`
	Vsock  *vsock   `json:"vsock"`
	CPU    *cpu     `json:"cpu"` // of a snapshot
}

func (m *machine) stage() stage {
	switch {
	case m.guest == nil:
		return notStarted
	case m.halted:
		return paused
	}
	return running
}

// do carries out a call that the description allows. The result is what is said, if anything.
func (m *machine) do(c call, given map[string]any) (any, error) {
	m.boots = m.boots || c.boots
	switch c.method + " " + c.path {
	case "GET /":
		return map[string]string{"id": "banger", "app_name": "Firecracker", "state": m.stage().String(), "vmm_version": Version}, nil
	case "GET /version":
		return map[string]string{"firecracker_version": Version}, nil
	case "GET /machine-config":
		return map[string]any{"vcpu_count": m.about.VCPUs, "mem_size_mib": m.about.Memory >> 20}, nil
	case "PUT /logger", "PUT /metrics", "PUT /entropy":
		return nil, nil
	case "PUT /machine-config":
		m.about.VCPUs, m.about.Memory = int(given["vcpu_count"].(float64)), int64(given["mem_size_mib"].(float64))<<20
		return nil, nil
	case "PUT /boot-source":
		return nil, m.setKernel(given)
	case "PUT /drives/":
		d := &drive{ID: given["drive_id"].(string), Path: given["path_on_host"].(string), ReadOnly: given["is_read_only"] == true}
		m.about.Drives = append(m.about.Drives, d)
		return nil, d.open()
	case "PATCH /drives/":
		return nil, m.patch(given)
	case "PUT /network-interfaces/":
		n := &card{ID: given["iface_id"].(string), Host: given["host_dev_name"].(string)}
		m.about.Cards = append(m.about.Cards, n)
		return nil, n.plugIn()
	case "PUT /vsock":
		m.about.Vsock = &vsock{Path: given["uds_path"].(string)}
		return nil, m.about.Vsock.listen()
	case "PUT /actions":
		return nil, m.act(given["action_type"].(string))
	case "PATCH /vm":
		m.turn(given["state"] == "Paused")
		return nil, nil
	case "PUT /snapshot/create":
		return nil, m.save(given["snapshot_path"].(string), given["mem_file_path"].(string), given["snapshot_type"] == "Diff")
	case "PUT /snapshot/load":
		if m.boots {
			return nil, errors.New("no snapshot can be loaded after a machine was described")
		}
		err := m.load(given)
		m.broken = err != nil
		return nil, err
	}
	return nil, fmt.Errorf("the stand-in does not carry out %s", c.path)
}

func (m *machine) setKernel(given map[string]any) error {
	m.kernel = given["kernel_image_path"].(string)
	m.initrd, _ = given["initrd_path"].(string)
	m.args, _ = given["boot_args"].(string)
	for _, path := range []string{m.kernel, m.initrd} {
		if path == "" {
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

func (m *machine) patch(given map[string]any) error {
	for _, d := range m.about.Drives {
		if d.ID == given["drive_id"] {
			if path, is := given["path_on_host"].(string); is {
				d.Path = path
			}
			return d.open()
		}
	}
	return errors.New("there is no such drive")
}

func (m *machine) act(what string) error {
	switch {
	case what == "FlushMetrics":
		return nil
	case what == "SendCtrlAltDel" && m.guest == nil:
		return errors.New("the machine has not been started")
	case what == "SendCtrlAltDel":
		return nil
	case m.guest != nil:
		return errors.New("the machine has been started")
	}
	return m.start()
}

// start has the guest boot.
func (m *machine) start() error {
	if m.kernel == "" {
		return errors.New("the machine has no kernel")
	}
	f, err := elf.Open(m.kernel)
	if err != nil {
		return err
	}
	f.Close()
	ram, err := unix.Mmap(-1, 0, int(m.memory()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	state := &cpu{Used: pageSize}
	for word := range strings.FieldsSeq(m.args) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "banger.disks":
			state.Serials = strings.Split(value, ",")
		case "banger.vsock":
			_, _ = fmt.Sscan(value, &state.Port)
		}
	}
	m.guest = newGuest(m, ram, state)
	m.guest.reply("hello")
	m.guest.run()
	return nil
}

// memory is what a machine has of which nothing was said, too.
func (m *machine) memory() int64 { return cmp.Or(m.about.Memory, 128<<20) }

// turn halts the guest, or lets it run. Where it did not hear of a reset, Firecracker lets
// nothing more in by vsock.
func (m *machine) turn(halt bool) {
	switch {
	case halt && !m.halted:
		m.guest.gate.Lock()
		m.announced = false
	case !halt:
		if m.about.Vsock != nil {
			m.about.Vsock.reset(m.announced)
		}
		if m.halted {
			m.guest.gate.Unlock()
		}
	}
	m.halted = halt
}

// save writes the state and then the memory. A guest hears of the reset of its vsock as soon as
// its state has been taken.
func (m *machine) save(to, memory string, diff bool) error {
	m.announced = true
	a := m.about
	a.CPU, a.Memory = m.guest.cpu, int64(len(m.guest.ram))
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to, text, 0o600); err != nil {
		return fmt.Errorf("cannot write the state: %w", err)
	}
	if err := writeMemory(memory, m.guest.ram, diff); err != nil {
		return fmt.Errorf("cannot write the memory: %w", err)
	}
	return nil
}

// load is the way back.
func (m *machine) load(given map[string]any) error {
	text, err := os.ReadFile(given["snapshot_path"].(string))
	if err != nil {
		return fmt.Errorf("cannot read the state: %w", err)
	}
	if err := json.Unmarshal(text, &m.about); err != nil {
		return fmt.Errorf("this is the state of no machine: %w", err)
	}
	if err := m.override(given); err != nil {
		return err
	}
	if err := m.open(); err != nil {
		return err
	}
	memory, _ := given["mem_file_path"].(string)
	if backend, is := given["mem_backend"].(map[string]any); is {
		memory = backend["backend_path"].(string)
	}
	ram, err := mapMemory(memory, m.about.Memory)
	if err != nil {
		return fmt.Errorf("cannot map the memory: %w", err)
	}
	m.guest = newGuest(m, ram, m.about.CPU)
	m.guest.gate.Lock()
	m.halted, m.announced = true, true
	m.guest.run()
	if given["resume_vm"] == true {
		m.turn(false)
	}
	return nil
}

// override gives devices other names on the host.
func (m *machine) override(given map[string]any) error {
	cards, _ := given["network_overrides"].([]any)
	for _, o := range cards {
		o, found := o.(map[string]any), false
		for _, c := range m.about.Cards {
			if c.ID == o["iface_id"] {
				c.Host, found = o["host_dev_name"].(string), true
			}
		}
		if !found {
			return errors.New("there is no such network interface")
		}
	}
	if o, is := given["vsock_override"].(map[string]any); is {
		if m.about.Vsock == nil {
			return errors.New("there is no vsock")
		}
		m.about.Vsock.Path = o["uds_path"].(string)
	}
	return nil
}

func (m *machine) open() error {
	for _, d := range m.about.Drives {
		if err := d.open(); err != nil {
			return err
		}
	}
	for _, c := range m.about.Cards {
		if err := c.plugIn(); err != nil {
			return err
		}
	}
	if m.about.Vsock == nil {
		return nil
	}
	return m.about.Vsock.listen()
}
