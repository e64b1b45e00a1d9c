// Package nested tries banger under KVM on a host that has none that works. The
// processor of an emulated VM can virtualise too, in AMD's way, so in a VM of
// banger's own there is a /dev/kvm that works: the host's QEMU, a Firecracker where
// one is given, and banger are put into one and run there.
//
// It tries what is right, never what is fast: everything takes many times longer
// than on a processor.
package nested

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// variable asks for these tests, which take long, firecrackerVariable for those of the
// Firecracker it names, and countVariable says how often to boot and to fork.
const (
	variable            = "BANGER_TEST_NESTED"
	firecrackerVariable = "FIRECRACKER"
	countVariable       = "COUNT"
)

// driver is one that is tried, and the name of its tests.
type driver struct{ name, tests string }

func TestUnderKVM(t *testing.T) {
	if os.Getenv(variable) == "" {
		t.Skip("takes long: make test-kvm runs it")
	}
	count := countOf(t)
	o := startOuter(t)
	t.Run("without a device KVM is absent", func(t *testing.T) { o.testVerdict(t, "root", "WARN kvm absent:") })
	o.must(t, "modprobe kvm_amd && test -c /dev/kvm")
	t.Run("KVM is found usable", func(t *testing.T) { o.testVerdict(t, "root", "PASS kvm usable") })
	t.Run("a user without permission is told so", func(t *testing.T) {
		o.testVerdict(t, person, "WARN kvm present without permission:")
	})
	o.must(t, "chmod 666 /dev/kvm /dev/net/tun")
	t.Run("a user with permission finds KVM usable", func(t *testing.T) { o.testVerdict(t, person, "PASS kvm usable") })
	for _, d := range o.drivers {
		t.Run(d.name, func(t *testing.T) {
			t.Run("for a user", func(t *testing.T) { o.testLife(t, d, count) })
			t.Run("keeps the contract", func(t *testing.T) { o.testConformance(t, d) })
		})
	}
}

// countOf is how often what may fail now and then is done.
func countOf(t *testing.T) int {
	t.Helper()
	text := cmp.Or(os.Getenv(countVariable), "4")
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("bad %s=%s: it must be a number from 1", countVariable, text)
	}
	return n
}

// testVerdict wants a line of doctor's that begins so. Doctor fails for other reasons.
func (o *outer) testVerdict(t *testing.T, user, want string) {
	said, err := o.run(t, user, "", "banger doctor || true")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(said) {
		if strings.HasPrefix(strings.Join(strings.Fields(line), " "), want) {
			return
		}
	}
	t.Errorf("no line of doctor's begins with %q:\n%s", want, said)
}

// suiteLimit is a little more than a suite gives itself.
const suiteLimit = 95 * time.Minute

func (o *outer) testConformance(t *testing.T, d driver) {
	const name = "TestConformanceUnderKVM"
	var said bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), suiteLimit)
	defer cancel()
	cmd := o.command(ctx, "root", "cd /opt/test && BANGER_TEST_CACHE=/opt/test BANGER_TEST_GUEST=/opt/test/testguest BANGER_TEST_PATIENCE=5 "+
		"./"+d.tests+" -test.v -test.timeout 90m -test.run '^"+name+"$'")
	cmd.Stdout = io.MultiWriter(&said, t.Output())
	cmd.Stderr = cmd.Stdout
	err := cmd.Run()
	// A test that was skipped passes too.
	if err != nil || !strings.Contains(said.String(), "--- PASS: "+name+" ") {
		t.Errorf("%s of %s did not pass (%v)", name, d.name, err)
	}
}
