package ext4

import (
	"archive/tar"
	"encoding/binary"
	"fmt"
	"strings"
)

const xattrRecord = "SCHILY.xattr."

// cleanRecords keeps of an entry's records the extended attributes a file
// system can hold and that mean in it what they meant.
func cleanRecords(h *tar.Header) error {
	for key, value := range h.PAXRecords {
		name, isXattr := strings.CutPrefix(key, xattrRecord)
		switch {
		case strings.HasPrefix(key, "GNU.sparse."), strings.HasPrefix(name, "trusted.overlay."), strings.HasPrefix(name, "user.overlay."):
			// The first speak of how the tar is laid out. The others would speak to
			// the overlay that the guest's root is.
			delete(h.PAXRecords, key)
		case !isXattr:
		case len(name) > 255:
			return fmt.Errorf("entry %q has an extended attribute with a name of %d bytes", h.Name, len(name))
		case strings.HasPrefix(name, "system."):
			if acl, ok := storedACL(name, []byte(value)); ok {
				h.PAXRecords[key] = string(acl)
			} else {
				delete(h.PAXRecords, key)
			}
		}
	}
	return nil
}

// Of <linux/posix_acl_xattr.h> and the kernel's fs/ext4/acl.h.
const (
	aclVersion       = 2 // as a system call has it
	aclStoredVersion = 1
	aclUser          = 0x02
	aclGroup         = 0x08
)

// storedACL turns an access control list as system calls have it into what is
// on an ext4 disk: entries for a named user or group have an id, the others
// none. Stored as it comes it would make every later touch through an overlay
// fail. false means that it is none, and is to be left out.
func storedACL(name string, value []byte) ([]byte, bool) {
	if name != "system.posix_acl_access" && name != "system.posix_acl_default" {
		return nil, false
	}
	if len(value) < 12 || len(value)%8 != 4 || binary.LittleEndian.Uint32(value) != aclVersion {
		return nil, false
	}
	out := binary.LittleEndian.AppendUint32(nil, aclStoredVersion)
	for e := value[4:]; len(e) > 0; e = e[8:] {
		out = append(out, e[:4]...)
		if tag := binary.LittleEndian.Uint16(e); tag == aclUser || tag == aclGroup {
			out = append(out, e[4:8]...)
		}
	}
	return out, true
}
