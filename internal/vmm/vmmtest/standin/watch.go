package standin

import (
	"encoding/json"
	"net"
	"sync"
)

// Call is one that came.
type Call struct {
	PID   int    `json:"pid"` // of the stand-in
	What  string `json:"what"`
	Body  string `json:"body,omitempty"`
	Wrong string `json:"wrong,omitempty"` // why the description refuses it
}

// Verdict is what is to become of a call.
type Verdict string

// The verdicts. An empty one carries it out.
const (
	Carry     Verdict = ""
	Refuse    Verdict = "refuse"     // with status 400 and the message Refusal
	Drop      Verdict = "drop"       // the connection is closed, and nothing done
	DropAfter Verdict = "drop after" // it is carried out, and the connection closed in place of an answer
	Die       Verdict = "die"        // the process ends in the middle of it
)

// Refusal is the message of a call that was refused.
const Refusal = "the test wants it so"

// watcher asks the test.
type watcher struct {
	mu   sync.Mutex
	out  *json.Encoder
	in   *json.Decoder
	conn net.Conn
}

func dial(path string) (*watcher, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	return &watcher{out: json.NewEncoder(conn), in: json.NewDecoder(conn), conn: conn}, nil
}

// tell says what came, and gives what is to become of it. Without a test all is carried out.
func (w *watcher) tell(c Call) (v Verdict) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.out.Encode(c) != nil || w.in.Decode(&v) != nil {
		return Carry
	}
	return v
}
