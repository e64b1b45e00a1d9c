package daemon

import (
	"io"
	"log/slog"

	"banger"
	"banger/internal/logfile"
)

// maxLog is when the log begins anew; one predecessor is kept beside it.
const maxLog = 10 << 20

func openLog(path string) (*logfile.File, error) {
	l, err := logfile.Open(path, maxLog)
	if err != nil {
		return nil, banger.Errorf(banger.Unavailable, "cannot open the log %s: %w", path, reason(err))
	}
	return l, nil
}

func newLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
}
