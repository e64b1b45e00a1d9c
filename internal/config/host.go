package config

import (
	"os"
	"runtime"

	"banger"

	"golang.org/x/sys/unix"
)

// Host is what of this machine and user defaults and paths depend on.
type Host struct {
	CPUs     int    // 0 where unknown
	RAMBytes int64  // 0 where unknown
	Home     string // absolute
	Getenv   func(string) string
}

func thisHost() Host {
	h := Host{CPUs: runtime.NumCPU(), Getenv: os.Getenv, RAMBytes: HostRAM()}
	h.Home, _ = os.UserHomeDir()
	return h
}

// HostRAM is the machine's memory in bytes, and 0 where it cannot be told.
func HostRAM() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit)
}

// vcpu is a quarter of the host's, from 1 to 4.
func (h Host) vcpu() (n int, origin string) {
	if h.CPUs < 1 {
		return banger.DefaultVCPU, FromDefault
	}
	return min(max(h.CPUs/4, 1), 4), FromHost
}

// memoryMiB is an eighth of the host's, in steps of 256 MiB, from 1 to 8 GiB.
func (h Host) memoryMiB() (mib int64, origin string) {
	if h.RAMBytes < 1 {
		return banger.DefaultMemoryMiB, FromDefault
	}
	const step = 256
	eighth := h.RAMBytes / banger.MiB / 8
	return min(max(eighth/step*step, 1<<10), 8<<10), FromHost
}

// defaults is the configuration without a file, with the origin of each key.
func defaults(h Host) (Config, map[string]string) {
	c := Config{
		LogLevel:          "info",
		DefaultImage:      banger.DefaultImage,
		DefaultKernel:     banger.DefaultKernel,
		VMM:               "auto",
		Accel:             "auto",
		IdleAction:        "stop",
		StatsPollInterval: defaultStatsPoll,
		NetworkPrefix:     "10.77.0.0/16",
		LoopbackPrefix:    "127.77",
		VMDefaults:        VMDefaults{DiskBytes: banger.DefaultDisk},
	}
	origins := map[string]string{}
	for _, k := range keys {
		origins[k.name] = FromDefault
	}
	c.VMDefaults.VCPU, origins["vm_defaults.vcpu"] = h.vcpu()
	c.VMDefaults.MemoryMiB, origins["vm_defaults.memory_mib"] = h.memoryMiB()
	return c, origins
}
