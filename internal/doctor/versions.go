package doctor

import (
	"context"
	"fmt"

	"banger/internal/build"
	"banger/internal/paths"
	"banger/internal/shim"
)

// versions says which builds of banger are at work.
func (e *exam) versions(ctx context.Context) {
	text := build.Version()
	switch d := e.daemon(ctx); {
	case d == nil:
		text += "; no daemon runs, which is ordinary"
	case d.Build != build.ID():
		text += fmt.Sprintf("; the daemon is of another build (%s) and is replaced once it is idle", d.Version)
	default:
		text += "; the daemon is of the same build"
	}
	if older := e.shimsOfOthers(); older > 0 {
		text += fmt.Sprintf("; %d VMs run under another build until they are restarted", older)
	}
	e.pass("version", "%s", text)
}

// shimsOfOthers counts the running VMs whose shim is of another build.
func (e *exam) shimsOfOthers() (n int) {
	names, _ := namesIn(e.dirs.VMs())
	for _, name := range names {
		id, alive, err := shim.Alive(paths.VM(e.dirs.VM(name)))
		if err == nil && alive && id.Build != build.ID() {
			n++
		}
	}
	return n
}
