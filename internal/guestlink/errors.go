package guestlink

import (
	"context"
	"errors"

	"banger"
	"banger/internal/guestwire"
)

// Error turns what a call or a stream failed with into an error with a code:
// what the other side refused keeps its code and hints, a lost connection is
// unavailable, a version nobody here speaks bad_version.
func Error(err error) error {
	var (
		known   *banger.Error
		refused *guestwire.Failure
		version *guestwire.VersionError
	)
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.As(err, &refused):
		e := banger.Errorf(banger.Code(refused.Code), "%w", refused)
		e.Hints = refused.Hints
		return e
	case errors.As(err, &version):
		return banger.Errorf(banger.BadVersion, "cannot speak to this VM: %w", version).
			Hint("banger vm restart %s brings both sides to the same version", banger.ThisVM)
	case errors.Is(err, context.Canceled):
		return banger.Errorf(banger.Cancelled, "%w", err)
	}
	return banger.Errorf(banger.Unavailable, "%w", err)
}
