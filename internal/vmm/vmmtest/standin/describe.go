package standin

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net"
	"regexp"
	"slices"
	"strings"
)

// stage is where in its life a Firecracker is. A call is for some of them.
type stage int

const (
	notStarted stage = 1 << iota
	running
	paused

	started = running | paused
	always  = notStarted | started
)

func (s stage) String() string {
	return map[stage]string{notStarted: "Not started", running: "Running", paused: "Paused"}[s]
}

// call is one that Firecracker's API has. A path that ends in a slash is followed by the name of
// what is meant, which the body repeats in the field id.
type call struct {
	method, path string
	when         stage
	body         *object // nil for none
	id           string
	boots        bool // it describes a machine that boots: none can be loaded after it
}

// calls are those of the API that a driver has a use for, from Firecracker's documentation.
func calls() []call {
	path, name := text{}, text{pattern: `^[A-Za-z0-9_]+$`}
	return []call{
		{method: "GET", path: "/", when: always},
		{method: "GET", path: "/version", when: always},
		{method: "GET", path: "/machine-config", when: always},
		{method: "PUT", path: "/logger", when: notStarted, body: &object{fields: fields{
			"log_path": path, "level": oneOf("Off", "Trace", "Debug", "Info", "Warn", "Warning", "Error"),
			"show_level": truth{}, "show_log_origin": truth{}, "module": text{},
		}}},
		{method: "PUT", path: "/metrics", when: notStarted, body: &object{need: []string{"metrics_path"}, fields: fields{"metrics_path": path}}},
		{method: "PUT", path: "/machine-config", when: notStarted, boots: true, body: &object{
			need: []string{"vcpu_count", "mem_size_mib"},
			fields: fields{
				"vcpu_count": number{1, 32}, "mem_size_mib": number{1, math.MaxInt32}, "smt": truth{}, "track_dirty_pages": truth{},
				"huge_pages": oneOf("None", "2M"),
			},
		}},
		{method: "PUT", path: "/boot-source", when: notStarted, boots: true, body: &object{
			need:   []string{"kernel_image_path"},
			fields: fields{"kernel_image_path": path, "initrd_path": path, "boot_args": text{}},
		}},
		{method: "PUT", path: "/drives/", id: "drive_id", when: notStarted, boots: true, body: &object{
			need: []string{"drive_id", "path_on_host", "is_root_device"},
			fields: fields{
				"drive_id": name, "path_on_host": path, "is_root_device": truth{}, "is_read_only": truth{}, "partuuid": text{},
				"cache_type": oneOf("Unsafe", "Writeback"), "io_engine": oneOf("Sync", "Async"),
			},
		}},
		{method: "PATCH", path: "/drives/", id: "drive_id", when: started, body: &object{
			need: []string{"drive_id"}, fields: fields{"drive_id": name, "path_on_host": path},
		}},
		{method: "PUT", path: "/network-interfaces/", id: "iface_id", when: notStarted, boots: true, body: &object{
			need:   []string{"iface_id", "host_dev_name"},
			fields: fields{"iface_id": name, "host_dev_name": text{}, "guest_mac": mac{}, "mtu": number{68, 65535}},
		}},
		{method: "PUT", path: "/vsock", when: notStarted, boots: true, body: &object{
			need:   []string{"guest_cid", "uds_path"},
			fields: fields{"guest_cid": number{3, math.MaxUint32}, "uds_path": path},
		}},
		{method: "PUT", path: "/entropy", when: notStarted, boots: true, body: &object{}},
		{method: "PUT", path: "/actions", when: always, body: &object{
			need: []string{"action_type"}, fields: fields{"action_type": oneOf("InstanceStart", "FlushMetrics", "SendCtrlAltDel")},
		}},
		{method: "PATCH", path: "/vm", when: started, body: &object{
			need: []string{"state"}, fields: fields{"state": oneOf("Paused", "Resumed")},
		}},
		{method: "PUT", path: "/snapshot/create", when: paused, body: &object{
			need:   []string{"snapshot_path", "mem_file_path"},
			fields: fields{"snapshot_path": path, "mem_file_path": path, "snapshot_type": oneOf("Full", "Diff")},
		}},
		{method: "PUT", path: "/snapshot/load", when: notStarted, body: &object{
			need: []string{"snapshot_path"},
			one:  []string{"mem_backend", "mem_file_path"},
			fields: fields{
				"snapshot_path": path, "mem_file_path": path, "resume_vm": truth{}, "track_dirty_pages": truth{}, "clock_realtime": truth{},
				"mem_backend": object{
					need:   []string{"backend_type", "backend_path"},
					fields: fields{"backend_type": oneOf("File", "Uffd"), "backend_path": path},
				},
				"network_overrides": list{object{
					need:   []string{"iface_id", "host_dev_name"},
					fields: fields{"iface_id": text{}, "host_dev_name": text{}},
				}},
				"vsock_override": object{need: []string{"uds_path"}, fields: fields{"uds_path": path}},
			},
		}},
	}
}

// shape says what a value must be.
type shape interface{ check(value any) error }

type (
	fields map[string]shape
	object struct {
		need   []string // fields that must be there
		one    []string // of which exactly one must be there
		fields fields   // all it may have
	}
	list   struct{ of shape }
	text   struct{ pattern string }
	choice struct{ words []string }
	number struct{ least, most float64 }
	truth  struct{}
	mac    struct{}
)

func oneOf(words ...string) choice { return choice{words} }

func (o object) check(value any) error {
	given, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("an object is expected, not %v", value)
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		shape, known := o.fields[name]
		if !known {
			return fmt.Errorf("unknown field `%s`", name)
		}
		if err := shape.check(given[name]); err != nil {
			return fmt.Errorf("field `%s`: %w", name, err)
		}
	}
	for _, name := range o.need {
		if _, there := given[name]; !there {
			return fmt.Errorf("missing field `%s`", name)
		}
	}
	there := 0
	for _, name := range o.one {
		if _, is := given[name]; is {
			there++
		}
	}
	if len(o.one) > 0 && there != 1 {
		return fmt.Errorf("exactly one field of %q is expected, not %d", o.one, there)
	}
	return nil
}

func (l list) check(value any) error {
	given, ok := value.([]any)
	if !ok {
		return fmt.Errorf("a list is expected, not %v", value)
	}
	for _, item := range given {
		if err := l.of.check(item); err != nil {
			return err
		}
	}
	return nil
}

func (s text) check(value any) error {
	given, ok := value.(string)
	if !ok || given == "" {
		return fmt.Errorf("a text is expected, not %#v", value)
	}
	if s.pattern != "" && !regexp.MustCompile(s.pattern).MatchString(given) {
		return fmt.Errorf("%q is not of the form %s", given, s.pattern)
	}
	return nil
}

func (c choice) check(value any) error {
	if given, ok := value.(string); !ok || !slices.Contains(c.words, given) {
		return fmt.Errorf("one of %q is expected, not %#v", c.words, value)
	}
	return nil
}

func (n number) check(value any) error {
	given, ok := value.(float64)
	if !ok || given != math.Trunc(given) || given < n.least || given > n.most {
		return fmt.Errorf("a whole number from %.0f to %.0f is expected, not %v", n.least, n.most, value)
	}
	return nil
}

func (truth) check(value any) error {
	if _, ok := value.(bool); !ok {
		return fmt.Errorf("true or false is expected, not %v", value)
	}
	return nil
}

func (mac) check(value any) error {
	given, _ := value.(string)
	if address, err := net.ParseMAC(given); err != nil || len(address) != 6 {
		return fmt.Errorf("the address of a card is expected, not %v", value)
	}
	return nil
}

// find gives the call that is meant, and the name in its path.
func find(method, path string) (c call, name string, ok bool) {
	for _, c := range calls() {
		rest, under := strings.CutPrefix(path, c.path)
		if c.method != method || !under || c.id == "" && rest != "" || c.id != "" && (rest == "" || strings.Contains(rest, "/")) {
			continue
		}
		return c, rest, true
	}
	return call{}, "", false
}

// check refuses a body that the call does not have.
func (c call) check(name string, body []byte) (map[string]any, error) {
	if c.body == nil {
		if len(body) > 0 {
			return nil, fmt.Errorf("%s takes no body", c.method)
		}
		return nil, nil
	}
	var value any
	if err := json.Unmarshal(body, &value); err != nil {
		return nil, fmt.Errorf("the body is not JSON: %w", err)
	}
	if err := c.body.check(value); err != nil {
		return nil, err
	}
	given := value.(map[string]any)
	if c.id != "" && given[c.id] != name {
		return nil, fmt.Errorf("the path says %q and the body %q", name, given[c.id])
	}
	return given, nil
}
