package qemu

import (
	"bufio"
	"bytes"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"banger/internal/vmm"
	"banger/internal/vmm/vmmtest"
)

// soakVariable asks for that many boots in a row.
const soakVariable = "BANGER_SOAK_BOOTS"

// soakLimit is when a boot counts as hung: many times what a slow one takes.
const soakLimit = 60 * time.Second

// TestSoakBoots boots again and again until the guest speaks. One kind of hang
// under emulation, the kernel calibrating its clock, showed once in ten boots;
// a single boot proves nothing.
func TestSoakBoots(t *testing.T) {
	boots, err := strconv.Atoi(os.Getenv(soakVariable))
	if err != nil {
		t.Skip("set " + soakVariable + " to the number of boots")
	}
	cfg := vmmtest.GuestConfig(t, mustFind(t), vmm.TCG)
	cfg.Dir = t.TempDir()
	var took []time.Duration
	for n := range boots {
		d, console := soakBoot(t, cfg)
		if d == 0 {
			t.Errorf("boot %d hung; its console:\n%s", n+1, console)
			continue
		}
		took = append(took, d)
	}
	if len(took) == 0 {
		t.Fatal("no boot came up")
	}
	slices.Sort(took)
	at := func(p int) time.Duration { return took[(len(took)-1)*p/100].Round(10 * time.Millisecond) }
	t.Logf("%d boots, %d hung; until the guest speaks: min %v, median %v, p99 %v, max %v",
		boots, boots-len(took), at(0), at(50), at(99), at(100))
}

// soakBoot is how long one boot took, and zero if it hung.
func soakBoot(t *testing.T, cfg vmm.Config) (time.Duration, []byte) {
	t.Helper()
	var console syncBuffer
	begin := time.Now()
	m, err := Driver{}.Boot(t.Context(), cfg, vmm.IO{Console: &console})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		m.Signal(os.Kill)
		<-m.Done()
		m.Agent().Close()
	}()
	m.Agent().SetReadDeadline(begin.Add(soakLimit))
	line, err := bufio.NewReader(m.Agent()).ReadString('\n')
	if err != nil || line != "hello\n" {
		return 0, console.bytes()
	}
	return time.Since(begin), nil
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.b.Bytes())
}
