package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/api"
)

// huma's model of errors and its leniency are package variables; these are
// the only ones this package sets.
func init() {
	huma.NewError = refusal
	huma.ValidateStrictCasing = true
}

// refusal is the problem of a request that was malformed, in place of huma's
// own form.
func refusal(status int, message string, details ...error) huma.StatusError {
	code := banger.BadRequest
	if status >= 500 {
		code = banger.Internal
	}
	what := make([]string, 0, len(details))
	for _, err := range details {
		var d *huma.ErrorDetail
		if errors.As(err, &d) && d.Location != "" {
			what = append(what, d.Location+": "+d.Message)
		} else if err != nil {
			what = append(what, err.Error())
		}
	}
	if len(what) == 0 {
		what = []string{message}
	}
	return &api.Problem{
		Title: "cannot accept the request: " + strings.Join(what, "; "),
		Code:  code, Status: statusOf(code, status),
	}
}

// statusOf keeps the status of a malformed request where it says more than
// the code does, as "too large" does.
func statusOf(code banger.Code, given int) int {
	if given == http.StatusRequestEntityTooLarge || given == http.StatusUnsupportedMediaType {
		return given
	}
	return status(code)
}

var statuses = map[banger.Code]int{
	banger.NotFound:      http.StatusNotFound,
	banger.NotRunning:    http.StatusConflict,
	banger.AlreadyExists: http.StatusConflict,
	banger.BadRequest:    http.StatusBadRequest,
	banger.BadVersion:    http.StatusUpgradeRequired,
	banger.Unauthorized:  http.StatusForbidden,
	banger.UnknownMethod: http.StatusNotFound,
	banger.Conflict:      http.StatusConflict,
	banger.Busy:          http.StatusConflict,
	banger.NoSpace:       http.StatusInsufficientStorage,
	banger.Cancelled:     499, // as nginx calls a client that closed its request
	banger.Unavailable:   http.StatusServiceUnavailable,
	banger.Internal:      http.StatusInternalServerError,
}

func status(code banger.Code) int {
	if s, known := statuses[code]; known {
		return s
	}
	return http.StatusInternalServerError
}

// faults turns errors into what a client may see.
type faults struct {
	log     *slog.Logger
	logPath string
}

// of is the problem of a failed request or operation. An internal error is
// logged here, and only here, and shown without its insides.
func (f faults) of(kind, subject, id string, err error) *api.Problem {
	code := banger.CodeOf(err)
	switch {
	case code == banger.Internal && (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)):
		code = banger.NoSpace
	case code == banger.Internal && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		code = banger.Cancelled
	case code == banger.Internal:
		return f.internal(kind, subject, id, err)
	}
	return &api.Problem{Title: err.Error(), Code: code, Status: status(code), Hints: banger.HintsOf(err), OperationID: id}
}

// change is the problem of a request to change something that is no operation: it
// is logged all the same, under an id of its own. A request that was not understood
// changed nothing and is the asker's to look at.
func (f faults) change(kind, subject string, err error) *api.Problem {
	id := banger.NewID()
	p := f.of(kind, subject, id, err)
	if p.Code == banger.BadRequest {
		p.OperationID = ""
		return p
	}
	f.log.Info("request refused", "operation", id, "kind", kind, "subject", subject, "code", string(p.Code), "error", p.Title)
	return p
}

func (f faults) internal(kind, subject, id string, err error) *api.Problem {
	if id == "" {
		id = banger.NewID()
	}
	f.log.Error("internal error", "operation", id, "kind", kind, "subject", subject, "error", err.Error())
	return &api.Problem{
		Title: fmt.Sprintf("cannot finish %s: something went wrong inside banger", describe(kind, subject)),
		Code:  banger.Internal, Status: status(banger.Internal), OperationID: id,
		Hints: []string{fmt.Sprintf("grep %s '%s'", id, f.logPath)},
	}
}
