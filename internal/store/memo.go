package store

import (
	"slices"
	"sync"

	"banger"
)

// memo remembers what rows were read as. Of listing 1,000 VMs two thirds is
// reading JSON, and between two listings few rows change. It can never be
// stale: the whole text of a row is compared.
type memo struct {
	mu   sync.Mutex
	rows map[string]memoised
}

type memoised struct {
	row vmRow
	vm  banger.VM
}

// vm is r.vm, remembered. The result shares nothing with the memory.
func (m *memo) vm(r *vmRow) banger.VM {
	m.mu.Lock()
	defer m.mu.Unlock()
	known, found := m.rows[r.id]
	if !found || known.row != *r {
		known = memoised{*r, r.vm()}
		if m.rows == nil {
			m.rows = map[string]memoised{}
		}
		m.rows[r.id] = known
	}
	vm := known.vm
	vm.Spec.Allow = slices.Clone(vm.Spec.Allow)
	vm.Spec.Publish = slices.Clone(vm.Spec.Publish)
	return vm
}

// forgetAllBut drops rows that a full listing no longer has.
func (m *memo) forgetAllBut(vms []banger.VM) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.rows) == len(vms) {
		return
	}
	kept := make(map[string]memoised, len(vms))
	for _, vm := range vms {
		if known, found := m.rows[vm.ID]; found {
			kept[vm.ID] = known
		}
	}
	m.rows = kept
}
