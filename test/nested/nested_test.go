// Package nested tries banger under KVM on a host that has none that works. The
// processor of an emulated VM can virtualise too, in AMD's way, so in a VM of
// banger's own there is a /dev/kvm that works: the host's QEMU and banger are put
// into one and run there.
//
// It tries what is right, never what is fast: everything takes many times longer
// than on a processor.
package nested

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
)

// variable asks for these tests, which take minutes.
const variable = "BANGER_TEST_NESTED"

func TestUnderKVM(t *testing.T) {
	if os.Getenv(variable) == "" {
		t.Skip("takes minutes: make nested-kvm runs it")
	}
	o := startOuter(t)
	t.Run("KVM is found usable", o.testUsable)
	t.Run("a VM runs under KVM", o.testRun)
	t.Run("the QEMU driver keeps its contract", o.testConformance)
}

func (o *outer) testUsable(t *testing.T) {
	said := o.must(t, "banger doctor || true")
	for line := range strings.Lines(said) {
		if strings.Join(strings.Fields(line), " ") == "PASS kvm usable" {
			return
		}
	}
	t.Errorf("doctor says\n%s", said)
}

// testRun leaves the acceleration to banger, as users do.
func (o *outer) testRun(t *testing.T) {
	want := o.must(t, "cat /etc/debian_version") // from the same image
	if got := o.must(t, "banger run --rm -- cat /etc/debian_version"); got != want {
		t.Errorf("the inner guest's /etc/debian_version holds %q, want %q", got, want)
	}
	if left := o.must(t, "banger ps -a -q"); left != "" {
		t.Errorf("banger run --rm left %s", left)
	}
	o.must(t, "banger vm create --name inner")
	var vm struct {
		Runtime struct {
			Accel string `json:"accel"`
		} `json:"runtime"`
	}
	if err := json.Unmarshal([]byte(o.must(t, "banger vm show inner")), &vm); err != nil || vm.Runtime.Accel != "kvm" {
		t.Errorf("acceleration %q (%v)", vm.Runtime.Accel, err)
	}
	o.must(t, "banger vm rm -f inner")
}

func (o *outer) testConformance(t *testing.T) {
	const name = "TestConformanceUnderKVM"
	var said bytes.Buffer
	cmd := o.command(t, "cd /opt/test && BANGER_TEST_CACHE=/opt/test BANGER_TEST_GUEST=/opt/test/testguest BANGER_TEST_PATIENCE=5 "+
		"./qemu.test -test.v -test.timeout 40m -test.run '^"+name+"$'")
	cmd.Stdout = io.MultiWriter(&said, t.Output())
	cmd.Stderr = cmd.Stdout
	err := cmd.Run()
	// A test that was skipped passes too.
	if err != nil || !strings.Contains(said.String(), "--- PASS: "+name+" ") {
		t.Errorf("%s did not pass (%v)", name, err)
	}
}
