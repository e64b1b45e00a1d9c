package vm

import (
	"fmt"
	"os"
	"testing"

	"banger"
)

// BenchmarkCreate is the part of a creation that is not the guest's.
func BenchmarkCreate(b *testing.B) {
	w := newWorld(b)
	for i := range b.N {
		if _, err := w.Create(b.Context(), Create{Name: fmt.Sprint("vm-", i), Start: true, Wait: true}, quiet{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkListThousand(b *testing.B) {
	w := newWorld(b)
	for i := range 1000 {
		row := banger.VM{ID: banger.NewID(), Name: fmt.Sprint("vm-", i), ImageID: testImage.ID, State: banger.StateStopped, Spec: banger.Spec{Layout: 1}}
		if _, err := w.rows.ReserveVM(b.Context(), row, w.config.NetworkPrefix); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if list, err := w.List(b.Context()); err != nil || len(list) != 1000 {
			b.Fatal(len(list), err)
		}
	}
}

func BenchmarkReconcileThousand(b *testing.B) {
	w := newWorld(b)
	for i := range 1000 {
		row := banger.VM{ID: banger.NewID(), Name: fmt.Sprint("vm-", i), ImageID: testImage.ID, State: banger.StateStopped, Spec: banger.Spec{Layout: 1}}
		row, err := w.rows.ReserveVM(b.Context(), row, w.config.NetworkPrefix)
		if err == nil {
			err = os.MkdirAll(string(w.Dirs.VM(row.ID)), 0o700)
		}
		if err == nil {
			err = hold(w.Dirs.VM(row.ID), row)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if err := w.Reconcile(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
