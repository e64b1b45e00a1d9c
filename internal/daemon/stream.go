package daemon

import (
	"encoding/json"
	"net/http"
)

const streamType = "application/x-ndjson"

// follow writes an operation's events as lines, each flushed, until it has
// ended. A client that went away cancels the operation by its request's
// context; follow stays to its end either way, so that no request outlives
// what it caused.
func follow(w http.ResponseWriter, op *operation) {
	w.Header().Set("Content-Type", streamType)
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	lines := json.NewEncoder(w)
	for gone := false; ; {
		events, more := op.take()
		for _, e := range events {
			gone = gone || lines.Encode(e) != nil
			if e.Result != nil || e.Error != nil {
				return
			}
		}
		if !gone {
			gone = flush.Flush() != nil
		}
		<-more
	}
}
