// Package vmmtest tells whether a vmm.Driver keeps the contract: Run is the
// conformance suite, Fake a driver whose machines are ordinary processes, and
// testguest the guest program the suite talks to.
//
// Only tests import it.
package vmmtest

import (
	"os"
	"strconv"
	"testing"
	"time"

	"banger/internal/vmm"
)

// Harness is a driver and a machine to try it on.
type Harness struct {
	Driver vmm.Driver

	// Config describes a machine that runs the test guest: see GuestConfig.
	// Run gives it a directory and disks.
	Config vmm.Config

	// NoDevices says that the guest is an ordinary process, which sees no
	// kernel and no disk of its own.
	NoDevices bool
}

// Limits of patience. A guest under emulation on a busy host is slow.
var (
	bootLimit   = patience * 90 * time.Second
	answerLimit = patience * 30 * time.Second
)

// PatienceVariable is how many times longer than usual to wait for everything,
// where the host itself is emulated.
const PatienceVariable = "BANGER_TEST_PATIENCE"

var patience = func() time.Duration {
	n, _ := strconv.Atoi(os.Getenv(PatienceVariable))
	return time.Duration(max(n, 1))
}()

// Run tries every promise of the contract.
func Run(t *testing.T, h Harness) {
	if os.Getenv(orphanVariable) != "" {
		bootOrphan(t, h)
		return
	}
	t.Run("a running machine", h.testRunning)
	t.Run("guest poweroff is reported", h.testPoweroff)
	t.Run("guest reset is reported", h.testReset)
	t.Run("a terminated VMM was killed", h.testTerminate)
	t.Run("several machines do not meet", h.testSeveral)
	t.Run("VMM dies with its parent", h.testOrphan)
	t.Run("VMM inherits nothing", h.testInheritance)
	t.Run("failed boot leaves nothing", h.testFailedBoot)
	if h.Driver.Features().Halts {
		t.Run("a machine whose disk has no room waits for it", h.testFull)
	}
	if h.Driver.Features().Snapshots {
		t.Run("a saved machine", h.testSaved)
		t.Run("machines saved under load fit together", h.testSavedUnderLoad)
		t.Run("all memory of a saved machine is of one moment", h.testOneMoment)
		t.Run("a save ends with its context", h.testCancelledSave)
		t.Run("VMM dies with its parent in the middle of a save", h.testOrphanInSave)
	} else {
		t.Run("a machine that cannot be saved says so", h.testNoSnapshots)
	}
	if h.Driver.Features().Layers {
		t.Run("a disk in layers", h.testLayers)
		t.Run("a disk frozen in a save", h.testFrozenInSave)
	} else {
		t.Run("a machine without layers says so", h.testNoLayers)
	}
}

// testRunning tries on one machine what leaves it running, since a boot takes
// seconds; then it kills it.
func (h Harness) testRunning(t *testing.T) {
	g := h.boot(t)
	t.Run("agent stream goes both ways", g.testAgent)
	t.Run("console is heard", g.testConsole)
	t.Run("console flood stalls nothing", g.testFlood)
	t.Run("pause stops time for the guest", g.testPause)
	if !h.NoDevices {
		t.Run("disks are found by serial", g.testDisks)
		t.Run("read-only disk refuses writes", g.testReadOnly)
	}
	t.Run("frames go both ways", g.testFrames)
	t.Run("a cable that nobody serves stalls nothing", g.testFrameFlood)
	if h.Driver.Features().DiskGrowth {
		t.Run("guest sees a disk grow", g.testGrow)
	}
	t.Run("kill is a power cut, also when paused", g.testKill)
	t.Run("an ended machine says so", g.testEnded)
}
