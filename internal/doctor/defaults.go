package doctor

import (
	"context"
	"fmt"
	"strings"
)

// defaults shows the shape of a VM nobody said anything about, with the
// origin of each value.
func (e *exam) defaults(context.Context) {
	var parts []string
	for _, s := range e.config.Settings() {
		switch s.Key {
		case "vm_defaults.vcpu", "vm_defaults.memory_mib", "vm_defaults.disk_size":
			parts = append(parts, fmt.Sprintf("%s %s (%s)", strings.TrimPrefix(s.Key, "vm_defaults."), s.Value, s.Origin))
		}
	}
	e.pass("defaults", "%s", strings.Join(parts, ", "))
}
