package api

import "encoding/json"

// Headers of requests and responses.
const (
	// BuildHeader carries each side's build id. An idle daemon that is asked
	// by another build does not answer but ends, so that the client can
	// start its own: see RestartHeader. A request without it is always
	// answered.
	BuildHeader = "Banger-Build-Id"
	// LevelHeader is the version of the API the daemon speaks.
	LevelHeader = "Banger-Api"
	// RestartHeader on a response says that the request was not acted on:
	// the daemon is ending for the sake of the client's build.
	RestartHeader = "Banger-Restart"
)

// Level is the version of the API that this package describes, the one in
// Prefix.
const Level = "1"

// Whereabouts is the text of the daemon's lock file.
type Whereabouts struct {
	PID    int    `json:"pid"`
	Socket string `json:"socket"`
	// Stopping says that the daemon no longer answers and will let go of
	// the lock by itself.
	Stopping bool `json:"stopping,omitempty"`
}

// Ready is the one line a daemon writes to whoever started it.
type Ready struct {
	Error *Problem `json:"error,omitempty"`
}

// The variables in which a starting client hands its descriptors to the
// daemon: the write end of a pipe for Ready, and the locked DaemonStart file.
const (
	ReadyFD = "BANGER_READY_FD"
	StartFD = "BANGER_START_FD"
)

// Marshal writes v as one line.
func Marshal(v any) []byte {
	line, err := json.Marshal(v)
	if err != nil {
		panic(err) // types of this package always can be
	}
	return append(line, '\n')
}
