package banger

import (
	"errors"
	"fmt"
	"strings"
)

// Code says what kind of failure an Error is. Codes travel over the API
// unchanged.
type Code string

// The codes of the API.
const (
	NotFound      Code = "not_found"
	NotRunning    Code = "not_running"
	AlreadyExists Code = "already_exists"
	BadRequest    Code = "bad_request"
	BadVersion    Code = "bad_version"
	Unauthorized  Code = "unauthorized"
	UnknownMethod Code = "unknown_method"
	Conflict      Code = "conflict"
	Busy          Code = "busy"
	NoSpace       Code = "no_space"
	Cancelled     Code = "cancelled"
	Unavailable   Code = "unavailable"
	Internal      Code = "internal"
)

// Error is a failure a person can act on.
//
// Message is a whole sentence without a full stop that begins with what could
// not be done ("cannot start devbox: its image is gone"). Each hint is a
// remedy, with a command that can be pasted where there is one.
type Error struct {
	Code        Code
	Message     string
	Hints       []string
	OperationID string // the operation to look for in the log, if any

	cause error
}

// Errorf builds an Error. The format may use %w, whose operand is kept for
// errors.Is and errors.As; hints of a wrapped Error are kept too.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Hints: HintsOf(err), cause: errors.Unwrap(err)}
}

// Wrap puts what could not be done in front of err, unless it stands there, and
// keeps its code and hints. It returns nil for a nil err.
func Wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	what := fmt.Sprintf(format, args...)
	if strings.HasPrefix(err.Error(), what+": ") {
		return err
	}
	return Errorf(CodeOf(err), "%s: %w", what, err)
}

// Hint adds a remedy and returns the same error, so that it can be chained.
func (e *Error) Hint(format string, args ...any) *Error {
	e.Hints = append(e.Hints, fmt.Sprintf(format, args...))
	return e
}

func (e *Error) Error() string { return e.Message }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.cause }

// CodeOf is the code of the first Error in err's chain, and Internal where
// there is none. It is empty for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}

// HintsOf is a copy of the hints of the first Error in err's chain.
func HintsOf(err error) []string {
	var e *Error
	if errors.As(err, &e) {
		return append([]string(nil), e.Hints...)
	}
	return nil
}

// ThisVM stands in hints for a VM whose name is not known where they are written; see
// NameVM.
const ThisVM = "VM"

// NameVM puts a VM's name into a hint where ThisVM stands for it.
func NameVM(hint, name string) string {
	words := strings.Split(hint, " ")
	for i, word := range words {
		named := i > 0 && words[i-1] != "the" && (word == ThisVM || strings.HasPrefix(word, ThisVM+":"))
		if named && name != "" {
			words[i] = name + strings.TrimPrefix(word, ThisVM)
		}
	}
	return strings.Join(words, " ")
}
