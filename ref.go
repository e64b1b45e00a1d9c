package banger

import (
	"fmt"
	"slices"
	"strings"
)

// Named is what a reference can be resolved to: a VM or an image.
type Named interface {
	RefID() string
	RefName() string
}

// RefID and RefName make a VM referable.
func (v VM) RefID() string   { return v.ID }
func (v VM) RefName() string { return v.Name }

// RefID and RefName make an Image referable.
func (i Image) RefID() string   { return i.ID }
func (i Image) RefName() string { return i.Name }

// Resolve finds the one of all that ref means: the one with exactly this id
// or name, else the only one whose id or name begins with ref. kind names
// what is looked for in errors, as in "VM".
func Resolve[T Named](kind, ref string, all []T) (T, error) {
	var none T
	if ref == "" {
		return none, Errorf(BadRequest, "cannot find a %s by an empty reference", kind)
	}
	var found []T
	for _, t := range all {
		if t.RefID() == ref || t.RefName() == ref {
			return t, nil
		}
		if strings.HasPrefix(t.RefID(), ref) || strings.HasPrefix(t.RefName(), ref) {
			found = append(found, t)
		}
	}
	switch len(found) {
	case 0:
		return none, Errorf(NotFound, "no %s is called %q", kind, ref).
			Hint("%s", listHint(kind))
	case 1:
		return found[0], nil
	}
	return none, Errorf(Conflict, "%q could be any of %d %ss: %s", ref, len(found), kind, candidates(found)).
		Hint("give more of the name or the id")
}

func listHint(kind string) string {
	switch kind {
	case "VM":
		return "banger ps -a lists all VMs"
	case "snapshot":
		return "banger vm snapshot list VM shows all snapshots"
	}
	return fmt.Sprintf("banger %s list shows all %ss", strings.ToLower(kind), kind)
}

// candidates lists names with short ids, the first ten in order of name.
func candidates[T Named](found []T) string {
	names := make([]string, len(found))
	for i, t := range found {
		names[i] = fmt.Sprintf("%s (%s)", t.RefName(), ShortID(t.RefID()))
	}
	slices.Sort(names)
	if len(names) > 10 {
		names = append(names[:10], "…")
	}
	return strings.Join(names, ", ")
}
