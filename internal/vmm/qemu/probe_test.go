package qemu

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/vmm"
	"banger/internal/vmm/child"
	"banger/internal/vmm/vmmtest"
)

func probeOf(t *testing.T) Probe {
	t.Helper()
	cfg := vmmtest.GuestConfig(t, mustFind(t), vmm.TCG)
	return Probe{Binary: cfg.Binary, Kernel: cfg.Kernel, Cache: filepath.Join(t.TempDir(), "sub", "accel.json")}
}

// Emulation stands for a KVM that works: the trial must recognise one.
func TestTrialRecognisesAnAccelerationThatWorks(t *testing.T) {
	v, err := probeOf(t).try(t.Context(), vmm.TCG, time.Minute)
	if err != nil || v.State != Usable {
		t.Errorf("verdict = %+v, %v", v, err)
	}
}

func TestTrialGivesUpOnASilentKernel(t *testing.T) {
	v, err := probeOf(t).try(t.Context(), vmm.TCG, time.Millisecond)
	if err != nil || v.State != Unusable || !strings.Contains(v.Why, "no further") {
		t.Errorf("verdict = %+v, %v", v, err)
	}
}

func TestVerdictOnKVMIsKept(t *testing.T) {
	p := probeOf(t)
	first, err := ProbeKVM(t.Context(), p)
	if err != nil || first.State == "" {
		t.Fatalf("verdict = %+v, %v", first, err)
	}
	t.Logf("KVM here: %+v", first)
	choice, err := Choose(t.Context(), "auto", p)
	if want := map[bool]vmm.Accel{true: vmm.KVM, false: vmm.TCG}[first.State == Usable]; err != nil || choice.Accel != want {
		t.Errorf("choice = %+v, %v, want %s", choice, err, want)
	}
	if first.State != Usable && first.State != Unusable {
		return // no trial was needed, so nothing is kept
	}
	again, known := p.Known()
	if !known || !again.At.Equal(first.At) {
		t.Errorf("kept verdict = %+v, %v, want the one of %v", again, known, first.At)
	}
	other := p
	other.Kernel = filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other.Kernel, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if v, known := other.recall(); known {
		t.Errorf("a verdict for another kernel was used: %+v", v)
	}
}

func TestTrialNeedsAKernel(t *testing.T) {
	p := Probe{Binary: "/bin/true", Kernel: filepath.Join(t.TempDir(), "gone")}
	if _, err := p.try(t.Context(), vmm.KVM, silenceLimit); banger.CodeOf(err) != banger.NotFound {
		t.Errorf("err = %v", err)
	}
}

// TestDeviceIsJudgedByOpeningIt covers the hosts on which no trial is needed. Of the
// two others, one whose KVM hangs ordinary guests is TestTrialGivesUpOnASilentKernel's,
// and one whose KVM works is a part of `make test-kvm`, with real devices.
func TestDeviceIsJudgedByOpeningIt(t *testing.T) {
	dir := t.TempDir()
	there, dead := filepath.Join(dir, "there"), filepath.Join(dir, "dead")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// A socket is opened as a device is whose driver is gone.
	socket, err := net.Listen("unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for _, c := range []struct {
		world, path string
		confined    bool
		want        State // empty where a trial has to tell
	}{
		{"no device", filepath.Join(dir, "gone"), false, NoDevice},
		{"nothing behind it", dead, false, NoDevice},
		{"no permission", there, true, NoPermission},
		{"openable", there, false, ""},
	} {
		t.Run(c.world, func(t *testing.T) {
			if c.confined && child.LandlockVersion() == 0 {
				t.Skip("this kernel has no Landlock to take a permission away from root")
			}
			v, plain := judgeConfined(c.path, c.confined)
			if v.State != c.want || plain != (c.want != "") || plain && v.Why == "" {
				t.Errorf("verdict = %+v, %v", v, plain)
			}
		})
	}
}

// judgeConfined judges on a thread that may open nothing, or on any.
func judgeConfined(path string, confined bool) (v Verdict, plain bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if confined {
			runtime.LockOSThread() // for good: the thread ends here
			child.Access{}.Confine()
		}
		v, plain = judgeDevice(path)
	}()
	<-done
	return v, plain
}

func TestConfigurationOverridesTheTrial(t *testing.T) {
	p := Probe{Binary: "/nonexistent", Kernel: "/nonexistent"}
	if c, err := Choose(t.Context(), "tcg", p); err != nil || c.Accel != vmm.TCG || c.Verdict.State != "" {
		t.Errorf("tcg: %+v, %v", c, err)
	}
	if _, err := Choose(t.Context(), "hvf", p); banger.CodeOf(err) != banger.BadRequest {
		t.Errorf("hvf: %v", err)
	}
}
