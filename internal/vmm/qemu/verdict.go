package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"banger"
	"banger/internal/vmm"
)

// Choice is an acceleration and how it came about.
type Choice struct {
	Accel   vmm.Accel
	Verdict Verdict // of the trial; its State is empty if the configuration decided
}

// Choose turns the configured acceleration ("auto", "kvm", "tcg" or empty for
// auto) into one to boot with. Auto is KVM where it is usable, else emulation.
func Choose(ctx context.Context, configured string, p Probe) (Choice, error) {
	switch configured {
	case "", "auto":
		v, err := ProbeKVM(ctx, p)
		if err != nil {
			return Choice{}, err
		}
		if v.State == Usable {
			return Choice{vmm.KVM, v}, nil
		}
		return Choice{vmm.TCG, v}, nil
	case string(vmm.TCG):
		return Choice{Accel: vmm.TCG}, nil
	case string(vmm.KVM):
		if v, plain := judgeDevice(kvmDevice); plain {
			return Choice{}, banger.Errorf(banger.Unavailable, "cannot use KVM as configured: %s", v.Why).
				Hint("set accel = \"auto\" in the configuration to fall back on emulation")
		}
		return Choice{Accel: vmm.KVM}, nil
	}
	return Choice{}, banger.Errorf(banger.BadRequest, "bad acceleration %q: it must be auto, kvm or tcg", configured)
}

// record is the cache file: a verdict and what it holds for.
type record struct {
	Key     string  `json:"key"`
	Verdict Verdict `json:"verdict"`
}

func (p Probe) recall() (Verdict, bool) {
	text, err := os.ReadFile(p.Cache)
	if err != nil {
		return Verdict{}, false
	}
	var r record
	key, err := p.key()
	if err != nil || json.Unmarshal(text, &r) != nil || r.Key != key {
		return Verdict{}, false
	}
	return r.Verdict, r.Verdict.State != "" && r.Verdict.holds(time.Now())
}

// keep writes the cache. Whatever hinders it only costs another trial.
func (p Probe) keep(v Verdict) {
	key, err := p.key()
	if err != nil || p.Cache == "" {
		return
	}
	text, err := json.MarshalIndent(record{key, v}, "", "  ")
	if err != nil {
		return
	}
	dir := filepath.Dir(p.Cache)
	if os.MkdirAll(dir, 0o700) != nil {
		return
	}
	tmp, err := os.CreateTemp(dir, ".accel-*")
	if err != nil {
		return
	}
	_, err = tmp.Write(text)
	if errors.Join(err, tmp.Close(), os.Rename(tmp.Name(), p.Cache)) != nil {
		os.Remove(tmp.Name())
	}
}

// key names everything a verdict depends on that can change: this boot of the
// host, the files, and how the kernel's KVM modules are loaded.
func (p Probe) key() (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	parts := []string{strings.TrimSpace(string(boot))}
	for _, path := range []string{p.Binary, p.Kernel} {
		info, err := os.Stat(path)
		if err != nil {
			return "", err
		}
		parts = append(parts, fmt.Sprintf("%s %d %d", path, info.Size(), info.ModTime().UnixNano()))
	}
	return strings.Join(append(parts, modules("/sys/module")...), "\n"), nil
}

// modules lists the KVM modules with their parameters.
func modules(sys string) []string {
	var out []string
	dirs, _ := filepath.Glob(filepath.Join(sys, "kvm*"))
	for _, dir := range dirs {
		line := filepath.Base(dir)
		params, _ := filepath.Glob(filepath.Join(dir, "parameters", "*"))
		for _, param := range params {
			value, _ := os.ReadFile(param) // some are not for everybody to read
			line += fmt.Sprintf(" %s=%s", filepath.Base(param), strings.TrimSpace(string(value)))
		}
		out = append(out, line)
	}
	return out
}
