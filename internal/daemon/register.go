package daemon

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"banger/internal/api"
)

// maxBody bounds requests: the largest is a handful of short lists.
const maxBody = 256 << 10

// Inputs of routes. Where a body is a pointer it may be left out.
type (
	none  struct{}
	ofRef struct {
		Ref string `path:"ref"`
	}
	toRef[T any] struct {
		Ref  string `path:"ref"`
		Body *T
	}
	given[T any] struct{ Body T }
)

type answer[T any] struct{ Body T }

// newAPI is huma with only JSON, strict, and without its documentation pages.
func newAPI(mux *http.ServeMux) huma.API {
	jsonFormat := huma.Format{
		Marshal:   func(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) },
		Unmarshal: json.Unmarshal,
	}
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "banger", Version: api.Level},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
			},
		},
		Formats:                      map[string]huma.Format{"application/json": jsonFormat, "json": jsonFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
	}
	return humago.New(mux, config)
}

func describeRoute(method, path, name, summary string) huma.Operation {
	return huma.Operation{
		Method: method, Path: api.Prefix + path, OperationID: name, Summary: summary,
		MaxBodyBytes: maxBody,
		// A deadline for reading would go on after the body and end the
		// request's context: huma's default cancels operations after 5 s.
		BodyReadTimeout: -1,
	}
}

func get[I, O any](r huma.API, d *daemon, path, name, summary string, h func(context.Context, *I) (O, error)) {
	register(r, d, describeRoute(http.MethodGet, path, name, summary), h)
}

func post[I, O any](r huma.API, d *daemon, path, name, summary string, h func(context.Context, *I) (O, error)) {
	register(r, d, describeRoute(http.MethodPost, path, name, summary), h)
}

func patch[I, O any](r huma.API, d *daemon, path, name, summary string, h func(context.Context, *I) (O, error)) {
	register(r, d, describeRoute(http.MethodPatch, path, name, summary), h)
}

func register[I, O any](r huma.API, d *daemon, op huma.Operation, h func(context.Context, *I) (O, error)) {
	huma.Register(r, op, func(ctx context.Context, in *I) (*answer[O], error) {
		out, err := h(ctx, in)
		if err != nil && op.Method != http.MethodGet {
			return nil, d.faults.change(op.OperationID, named(in), err)
		} else if err != nil {
			return nil, d.faults.of(op.OperationID, "", "", err)
		}
		return &answer[O]{out}, nil
	})
}

// remove registers a DELETE, which answers nothing.
func remove[I any](r huma.API, d *daemon, path, name, summary string, h func(context.Context, *I) error) {
	op := describeRoute(http.MethodDelete, path, name, summary)
	op.DefaultStatus = http.StatusNoContent
	huma.Register(r, op, func(ctx context.Context, in *I) (*none, error) {
		if err := h(ctx, in); err != nil {
			return nil, d.faults.change(name, named(in), err)
		}
		return nil, nil
	})
}

// named is what a request calls its subject in its path, "" for none.
func named(in any) string {
	field := reflect.Indirect(reflect.ValueOf(in)).FieldByName("Ref")
	if field.Kind() != reflect.String {
		return ""
	}
	return field.String()
}

// job is long work that a request asks for: what to call its subject, and
// what to do. It is prepared before the answer begins, so that a bad request
// is refused with a status of its own.
type job struct {
	subject string
	work    work
}

// stream registers a POST whose answer is the events of an operation with a
// result of type O.
func stream[O, I any](r huma.API, d *daemon, path, name, summary string, h func(context.Context, *I) (job, error)) {
	op := describeRoute(http.MethodPost, path, name, summary)
	op.Responses = map[string]*huma.Response{"200": {
		Description: "Events; the last has an error or the result",
		Content:     map[string]*huma.MediaType{streamType: {Schema: eventOf[O](r)}},
	}}
	huma.Register(r, op, func(ctx context.Context, in *I) (*huma.StreamResponse, error) {
		j, err := h(ctx, in)
		if err != nil {
			return nil, d.faults.change(name, named(in), err)
		}
		running, err := d.operations.start(ctx, name, j.subject, j.work)
		if err != nil {
			return nil, d.faults.change(name, j.subject, err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			_, w := humago.Unwrap(hc)
			follow(w, running)
		}}, nil
	})
}

// eventOf is the schema of an Event whose result is an O.
func eventOf[O any](r huma.API) *huma.Schema {
	schemas := r.OpenAPI().Components.Schemas
	return &huma.Schema{AllOf: []*huma.Schema{
		schemas.Schema(reflect.TypeFor[api.Event](), true, ""),
		{Type: huma.TypeObject, Properties: map[string]*huma.Schema{
			"result": schemas.Schema(reflect.TypeFor[O](), true, ""),
		}},
	}}
}
