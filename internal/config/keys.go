package config

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"banger"
	"banger/internal/vnet/reach"
)

const defaultStatsPoll = 10 * time.Second

// LeastStatsPoll is the shortest stats_poll_interval.
const LeastStatsPoll = time.Second

// key is one key of the file: how its value is taken and shown.
type key struct {
	name string
	set  func(c *Config, value any, host Host) error
	show func(c *Config) string
}

var keys = []key{
	oneOf("log_level", func(c *Config) *string { return &c.LogLevel }, "debug", "info", "warn", "error"),
	text("default_image_name", func(c *Config) *string { return &c.DefaultImage }, banger.ValidateImageName),
	text("default_kernel", func(c *Config) *string { return &c.DefaultKernel }, banger.ValidateKernelName),
	oneOf("vmm", func(c *Config) *string { return &c.VMM }, "auto", "firecracker", "qemu"),
	file("firecracker_bin", func(c *Config) *string { return &c.FirecrackerBin }),
	file("qemu_bin", func(c *Config) *string { return &c.QEMUBin }),
	oneOf("accel", func(c *Config) *string { return &c.Accel }, "auto", "kvm", "tcg"),
	file("ssh_key_path", func(c *Config) *string { return &c.SSHKeyPath }),
	file("mise_bin", func(c *Config) *string { return &c.MiseBin }),
	duration("auto_stop_stale_after", func(c *Config) *time.Duration { return &c.AutoStopStaleAfter }, 0),
	oneOf("idle_action", func(c *Config) *string { return &c.IdleAction }, "stop", "suspend"),
	duration("stats_poll_interval", func(c *Config) *time.Duration { return &c.StatsPollInterval }, LeastStatsPoll),
	text("network_prefix", func(c *Config) *string { return &c.NetworkPrefix }, checkNetwork),
	text("loopback_prefix", func(c *Config) *string { return &c.LoopbackPrefix }, checkLoopback),
	text("default_dns", func(c *Config) *string { return &c.DefaultDNS }, checkAddress),
	flag("inherit_proxy", func(c *Config) *bool { return &c.InheritProxy }),
	flag("inherit_ca", func(c *Config) *bool { return &c.InheritCA }),
	vcpu, memory, disk,
	flag("vm_defaults.nat", func(c *Config) *bool { return &c.VMDefaults.NAT }),
	allow,
}

var keysByName = func() map[string]key {
	m := map[string]key{}
	for _, k := range keys {
		m[k.name] = k
	}
	return m
}()

// referenceKeys belong to the tool whose files are accepted and mean nothing
// here.
var referenceKeys = []string{"bridge_name", "bridge_ip", "cidr", "tap_pool_size", "metrics_poll_interval", "web_listen_addr",
	"vm_defaults.system_overlay_size"}

func isReferenceKey(name string) bool {
	return slices.Contains(referenceKeys, name) || strings.HasPrefix(name, "jailer_")
}

var vcpu = key{
	"vm_defaults.vcpu",
	func(c *Config, value any, _ Host) error {
		n, ok := value.(int64)
		if !ok || n < 1 || n > 1024 {
			return wrong("a number of CPUs, from 1", value)
		}
		c.VMDefaults.VCPU = int(n)
		return nil
	},
	func(c *Config) string { return strconv.Itoa(c.VMDefaults.VCPU) },
}

var memory = key{
	"vm_defaults.memory_mib",
	func(c *Config, value any, h Host) error {
		n, ok := value.(int64)
		if !ok {
			return wrong("a number of MiB", value)
		}
		if h.RAMBytes > 0 {
			if err := banger.ValidateMemory(n, h.RAMBytes/banger.MiB); err != nil {
				return err
			}
		}
		c.VMDefaults.MemoryMiB = n
		return nil
	},
	func(c *Config) string { return strconv.FormatInt(c.VMDefaults.MemoryMiB, 10) },
}

// disk takes a size as flags do, or a number of MiB.
var disk = key{
	"vm_defaults.disk_size",
	func(c *Config, value any, _ Host) error {
		if n, ok := value.(int64); ok {
			value = strconv.FormatInt(n, 10)
		}
		s, ok := value.(string)
		if !ok {
			return wrong(`a size such as "8G"`, value)
		}
		n, err := banger.ParseSize(s)
		if err != nil {
			return err
		}
		if err := banger.ValidateDiskSize(n); err != nil {
			return err
		}
		c.VMDefaults.DiskBytes = n
		return nil
	},
	func(c *Config) string { return banger.FormatSize(c.VMDefaults.DiskBytes) },
}

var allow = key{
	"vm_defaults.allow",
	func(c *Config, value any, _ Host) error {
		list, ok := value.([]any)
		if !ok {
			return wrong(`a list such as ["example.com:443"]`, value)
		}
		c.VMDefaults.Allow = nil
		for _, v := range list {
			rule, ok := v.(string)
			if !ok {
				return wrong("a list of HOST or HOST:PORT", v)
			}
			c.VMDefaults.Allow = append(c.VMDefaults.Allow, rule)
		}
		_, err := reach.ParsePolicy(false, c.VMDefaults.Allow)
		return err
	},
	func(c *Config) string { return strings.Join(c.VMDefaults.Allow, " ") },
}
