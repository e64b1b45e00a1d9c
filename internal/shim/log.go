package shim

import (
	"bytes"
	"log/slog"
)

// maxVMMLog bounds what a VMM may write into the shim's log in one boot.
const maxVMMLog = 64 << 10

// vmmLog logs what a VMM says, line by line.
type vmmLog struct {
	log  *slog.Logger
	line []byte
	left int
	full bool
}

func newVMMLog(log *slog.Logger) *vmmLog { return &vmmLog{log: log, left: maxVMMLog} }

func (v *vmmLog) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0 && !v.full; {
		line, more, whole := bytes.Cut(rest, []byte{'\n'})
		v.line = append(v.line, line[:min(len(line), maxLine-min(maxLine, len(v.line)))]...)
		if whole {
			v.flush()
		}
		rest = more
	}
	return len(p), nil
}

func (v *vmmLog) flush() {
	v.left -= len(v.line)
	if v.full = v.left < 0; v.full {
		v.log.Warn("the VMM says too much; the rest of it is dropped")
		return
	}
	v.log.Info("vmm", "says", string(v.line)) // slog quotes it
	v.line = v.line[:0]
}
