package guest

import (
	"encoding/binary"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// initctl is where systemd's poweroff, halt, reboot and shutdown ask an init
// that is not systemd, as they asked sysvinit.
const initctl = "/run/initctl"

// serveInitctl waits for such requests.
func (a *agent) serveInitctl() error {
	if err := unix.Mkfifo(initctl, 0o600); err != nil && err != unix.EEXIST {
		return err
	}
	// Open for both, so that it does not end when a writer goes.
	fifo, err := os.OpenFile(initctl, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	go func() {
		defer fifo.Close()
		var request [initRequestLen]byte
		for {
			if _, err := io.ReadFull(fifo, request[:]); err != nil {
				return
			}
			if end, reboot := parseInitRequest(request[:]); end {
				a.finish(reboot)
			}
		}
	}()
	return nil
}

// initRequestLen is the size of sysvinit's struct init_request.
const initRequestLen = 384

// parseInitRequest reads a change to run level 0 or 6; all else is ignored.
func parseInitRequest(b []byte) (end, reboot bool) {
	const magic, changeLevel = 0x03091969, 1
	if binary.NativeEndian.Uint32(b) != magic || binary.NativeEndian.Uint32(b[4:]) != changeLevel {
		return false, false
	}
	level := binary.NativeEndian.Uint32(b[8:])
	return level == '0' || level == '6', level == '6'
}
