package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"sync"
	"time"

	"banger"
	"banger/internal/api"
)

// server is the HTTP side: who may speak, which build is asked, what no
// route answers.
func (d *daemon) server() *http.Server {
	mux := http.NewServeMux()
	r := newAPI(mux)
	d.routes(r)
	document := sync.OnceValues(r.OpenAPI().MarshalJSON) // milliseconds nobody needs at the start
	mux.HandleFunc("GET "+api.Prefix+"/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		text, err := document()
		if err != nil {
			write(w, d.faults.of("daemon.openapi", "", "", err))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(text)
	})
	mux.HandleFunc("/", unknown)
	return &http.Server{
		Handler:           d.guard(mux),
		ConnContext:       withPeer,
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(d.log.Handler(), slog.LevelWarn),
	}
}

// guard is in front of every request.
func (d *daemon) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.BuildHeader, d.buildID)
		w.Header().Set(api.LevelHeader, api.Level)
		if !welcome(r.Context()) {
			w.Header().Set("Connection", "close")
			refuse(w, banger.Unauthorized, "this daemon serves another user")
			return
		}
		if asked := r.Header.Get(api.BuildHeader); asked != "" && asked != d.buildID && d.makeWay() {
			w.Header().Set(api.RestartHeader, "1")
			refuse(w, banger.Unavailable, "this daemon ends, to be started from another build of banger")
			return
		}
		if p := r.URL.EscapedPath(); p != path.Clean(p) {
			unknown(w, r) // else it would be redirected
			return
		}
		if r.ContentLength > maxBody {
			// Read, or the client would break off before it hears the answer.
			_, _ = io.CopyN(io.Discard, r.Body, 64*maxBody)
			write(w, refusal(http.StatusRequestEntityTooLarge, fmt.Sprintf("it is too large: at most %d bytes are read", maxBody)).(*api.Problem))
			return
		}
		defer d.recovered(w, r)
		next.ServeHTTP(w, r)
	})
}

func unknown(w http.ResponseWriter, r *http.Request) {
	refuse(w, banger.UnknownMethod, fmt.Sprintf("there is no %s %s in this API", r.Method, r.URL.Path))
}

// makeWay ends an idle daemon.
func (d *daemon) makeWay() bool {
	if d.operations.close(false) != nil {
		return false
	}
	d.quit()
	return true
}

func (d *daemon) recovered(w http.ResponseWriter, r *http.Request) {
	if v := recover(); v != nil {
		err := fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		write(w, d.faults.of("request."+r.Method, r.URL.Path, "", err))
	}
}

func refuse(w http.ResponseWriter, code banger.Code, message string) {
	write(w, &api.Problem{Title: message, Code: code, Status: status(code)})
}

func write(w http.ResponseWriter, p *api.Problem) {
	w.Header().Set("Content-Type", api.ProblemType)
	w.WriteHeader(p.Status)
	_, _ = w.Write(api.Marshal(p))
}
