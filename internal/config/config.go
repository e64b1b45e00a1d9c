// Package config reads config.toml: every key, its default, where each value
// in force came from, and what is wrong with a file.
//
// It knows what a value may be, and nothing of what is done with it.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"time"

	"banger"
)

// Config is the configuration in force.
type Config struct {
	File string // where it was looked for; it need not exist

	LogLevel           string // debug, info, warn or error
	DefaultImage       string
	DefaultKernel      string
	VMM                string // auto, firecracker or qemu
	FirecrackerBin     string // "" is looked up in PATH, as the next ones
	QEMUBin            string
	Accel              string // auto, kvm or tcg
	SSHKeyPath         string // "" is banger's own key
	MiseBin            string
	AutoStopStaleAfter time.Duration // 0 is never
	IdleAction         string        // stop or suspend
	StatsPollInterval  time.Duration
	NetworkPrefix      string
	LoopbackPrefix     string
	DefaultDNS         string // "" is the host's resolvers
	InheritProxy       bool
	InheritCA          bool

	VMDefaults VMDefaults
	FileSync   []FileSync

	settings []Setting
}

// Network is network_prefix, from which VMs have their addresses.
func (c Config) Network() (netip.Prefix, error) { return parseNetwork(c.NetworkPrefix) }

// VMDefaults is the shape of a VM where its creator does not say otherwise.
type VMDefaults struct {
	VCPU      int
	MemoryMiB int64
	DiskBytes int64
	NAT       bool
	Allow     []string
}

// Setting is one key with its value in force and where that came from:
// "default", "host" (computed from the size of this machine), the name of an
// environment variable, or file:line.
type Setting struct {
	Key    string
	Value  string
	Origin string
}

// Warning is about something in the file that is accepted without effect.
type Warning string

// Origins of values.
const (
	FromDefault = "default"
	FromHost    = "host"
)

// logLevelEnv overrides log_level.
const logLevelEnv = "BANGER_LOG_LEVEL"

// Settings lists every key in the order of the documentation.
func (c Config) Settings() []Setting { return append([]Setting(nil), c.settings...) }

// Load reads the file at path. One that does not exist means the defaults. An
// unknown key or a value of the wrong kind is an error (conflict: no request is
// at fault) that names line and key.
func Load(path string) (Config, []Warning, error) { return load(path, thisHost()) }

func load(path string, host Host) (Config, []Warning, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Config{}, nil, banger.Errorf(banger.Conflict, "cannot read the configuration: %w", err)
	}
	c, origins := defaults(host)
	c.File = path
	warnings, err := c.apply(path, text, host, origins)
	if err != nil {
		return Config{}, nil, err
	}
	if err := c.applyEnv(host, origins); err != nil {
		return Config{}, nil, err
	}
	c.settings = c.list(origins)
	return c, warnings, nil
}

// apply puts what the file says over the defaults.
func (c *Config) apply(path string, text []byte, host Host, origins map[string]string) ([]Warning, error) {
	entries, err := parse(path, text)
	if err != nil {
		return nil, err
	}
	var ignored []string
	for _, e := range entries {
		switch k, known := keysByName[e.key]; {
		case e.value == any(tableHead{}) && e.key == "vm_defaults":
		case known:
			if err := k.set(c, e.value, host); err != nil {
				return nil, e.bad(path, err)
			}
			origins[e.key] = fmt.Sprintf("%s:%d", path, e.line)
		case isReferenceKey(e.key):
			ignored = append(ignored, fmt.Sprintf("%s (line %d)", e.key, e.line))
		case e.inFileSync():
			if err := c.applyFileSync(e, origins, path); err != nil {
				return nil, e.bad(path, err)
			}
		default:
			return nil, e.bad(path, errNoKey).Hint("remove that line; banger config show then lists every key")
		}
	}
	if err := c.checkFileSync(path, host, origins); err != nil {
		return nil, err
	}
	if len(ignored) == 0 {
		return nil, nil
	}
	return []Warning{Warning(fmt.Sprintf("%s: without a meaning here, ignored: %s", path, strings.Join(ignored, ", ")))}, nil
}

func (c *Config) applyEnv(host Host, origins map[string]string) error {
	level := host.Getenv(logLevelEnv)
	if level == "" {
		return nil
	}
	if err := keysByName["log_level"].set(c, level, host); err != nil {
		return banger.Errorf(banger.Conflict, "bad %s: %w", logLevelEnv, err)
	}
	origins["log_level"] = logLevelEnv
	return nil
}

func (c *Config) list(origins map[string]string) []Setting {
	var list []Setting
	for _, k := range keys {
		list = append(list, Setting{k.name, k.show(c), origins[k.name]})
	}
	for i, f := range c.FileSync {
		name := fmt.Sprintf("file_sync[%d]", i)
		list = append(list, Setting{name, f.String(), origins[name]})
	}
	return list
}
