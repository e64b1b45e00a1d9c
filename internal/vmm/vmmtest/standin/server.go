package standin

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
)

// mostBody is what Firecracker takes of a body.
const mostBody = 51200

// server answers calls, one after the other.
type server struct {
	machine *machine
	watch   *watcher
	mu      sync.Mutex
}

func serve(socket string, m *machine, watch *watcher) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	return http.Serve(l, &server{machine: m, watch: watch})
}

// answer is what becomes of a call: nothing to say, or what is said.
type answer struct {
	status int
	body   any
}

func refusal(text string) answer {
	return answer{http.StatusBadRequest, map[string]string{"fault_message": text}}
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostBody))
	if err != nil {
		return
	}
	c, given, wrong := s.judge(r, body)
	told := Call{PID: os.Getpid(), What: r.Method + " " + r.URL.Path, Body: string(body)}
	if wrong != nil {
		told.Wrong = wrong.Error()
	}
	verdict := s.watch.tell(told)
	switch verdict {
	case Drop:
		hangUp(w)
		return
	case Die:
		os.Exit(148)
	}
	said := refusal(Refusal)
	if verdict != Refuse {
		said = s.carryOut(c, given, wrong)
	}
	if verdict == DropAfter {
		hangUp(w)
		return
	}
	say(w, said)
	if s.machine.broken {
		w.(http.Flusher).Flush()
		s.machine.ended <- errors.New("the machine cannot be made from what was saved")
	}
}

// judge holds a call against the description.
func (s *server) judge(r *http.Request, body []byte) (call, map[string]any, error) {
	c, name, known := find(r.Method, r.URL.Path)
	switch {
	case !known:
		return c, nil, errors.New("there is no such call")
	case len(r.TransferEncoding) > 0:
		return c, nil, errors.New("a body must say how long it is")
	case r.URL.RawQuery != "":
		return c, nil, errors.New("a call has no query")
	}
	given, err := c.check(name, body)
	if err == nil && c.when&s.machine.stage() == 0 {
		err = errors.New("the requested operation is not supported in the state " + strconv.Quote(s.machine.stage().String()))
	}
	return c, given, err
}

func (s *server) carryOut(c call, given map[string]any, wrong error) answer {
	if wrong != nil {
		return refusal(wrong.Error())
	}
	said, err := s.machine.do(c, given)
	switch {
	case err != nil:
		return refusal(err.Error())
	case said == nil:
		return answer{status: http.StatusNoContent}
	}
	return answer{http.StatusOK, said}
}

func say(w http.ResponseWriter, a answer) {
	w.Header().Set("Content-Type", "application/json")
	if a.body == nil {
		w.WriteHeader(a.status)
		return
	}
	text, _ := json.Marshal(a.body) // never fails
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(a.status)
	_, _ = w.Write(text)
}

func hangUp(w http.ResponseWriter) {
	if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
		_ = conn.Close()
	}
}
