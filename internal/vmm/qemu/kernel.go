package qemu

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"

	"banger"
)

// notePVH is XEN_ELFNOTE_PHYS32_ENTRY: where an uncompressed kernel wants to
// be entered.
const notePVH = 18

// checkKernel refuses what QEMU would refuse later, or start and leave
// spinning.
func checkKernel(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return banger.Errorf(banger.BadRequest, "the kernel %s is not an ELF vmlinux: %w", path, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		notes, err := io.ReadAll(p.Open())
		if err != nil {
			return fmt.Errorf("cannot read the kernel %s: %w", path, err)
		}
		if hasPVH(f, notes) {
			return nil
		}
	}
	return banger.Errorf(banger.BadRequest, "the kernel %s has no PVH entry point", path).
		Hint("QEMU's microvm needs a kernel built with CONFIG_PVH=y")
}

// hasPVH walks notes: name size, description size, type, then both padded to
// four bytes.
func hasPVH(f *elf.File, notes []byte) bool {
	for len(notes) >= 12 {
		name, desc := int(f.ByteOrder.Uint32(notes)), int(f.ByteOrder.Uint32(notes[4:]))
		kind := f.ByteOrder.Uint32(notes[8:])
		next := 12 + (name+3)&^3 + (desc+3)&^3
		if name < 0 || desc < 0 || next > len(notes) {
			return false
		}
		if kind == notePVH && bytes.Equal(notes[12:12+name], []byte("Xen\x00")) {
			return true
		}
		notes = notes[next:]
	}
	return false
}
