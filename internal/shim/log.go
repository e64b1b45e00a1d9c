package shim

import (
	"bytes"
	"io"
	"log/slog"
	"os"

	"banger/internal/logfile"
	"banger/internal/paths"
)

// maxLog is when the shim's log begins anew; one predecessor is kept beside it. A guest
// that reboots for ever has the shim, and its VMM, say the same for ever.
const maxLog = 1 << 20

// openLog opens the log. stderr, which a Starter has made that log, follows it.
func openLog(dir paths.VM) io.Writer {
	l, err := logfile.Open(dir.ShimLog(), maxLog)
	if err != nil {
		return os.Stderr
	}
	return l
}

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
