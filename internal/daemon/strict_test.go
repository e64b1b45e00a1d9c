package daemon_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"banger"
	"banger/internal/api"
)

// raw sends what no typed client would.
func (h *house) raw(t *testing.T, method, path, contentType, body string) (*http.Response, []byte) {
	t.Helper()
	c := &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", h.dirs.Socket())
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequest(method, "http://x"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, answer
}

func TestBadRequestsAreRefusedAsProblems(t *testing.T) {
	h := open(t, &fakeVMs{})
	if _, err := h.client.CreateVM(t.Context(), api.CreateVM{Name: "box"}, nil); err != nil {
		t.Fatal(err)
	}
	const js = "application/json"
	for _, c := range []struct {
		name, method, path, contentType, body string
		status                                int
		code                                  banger.Code
		says                                  string
	}{
		{"unknown field", "POST", "/v1/vms", js, `{"name":"a","colour":"red"}`, 400, banger.BadRequest, "colour"},
		{"unknown nested", "PATCH", "/v1/vms/box", js, `{"name":"a","x":{}}`, 400, banger.BadRequest, "body.x"},
		{"wrong type", "POST", "/v1/vms", js, `{"vcpu":"two"}`, 400, banger.BadRequest, "body.vcpu"},
		{"a fraction", "POST", "/v1/vms", js, `{"vcpu":1.5}`, 400, banger.BadRequest, "body.vcpu"},
		{"wrong case", "POST", "/v1/vms", js, `{"Name":"a"}`, 400, banger.BadRequest, "body.Name"},
		{"no object", "POST", "/v1/vms", js, `[]`, 400, banger.BadRequest, "body"},
		{"no JSON", "POST", "/v1/vms", js, `{"name":`, 400, banger.BadRequest, "JSON"},
		{"two documents", "POST", "/v1/vms", js, `{} {}`, 400, banger.BadRequest, "after top-level value"},
		{"no body", "POST", "/v1/vms", js, ``, 400, banger.BadRequest, "body is required"},
		{"other content", "POST", "/v1/vms", "text/plain", `{}`, 415, banger.BadRequest, "text/plain"},
		{"oversized", "POST", "/v1/vms", js, `{"name":"` + strings.Repeat("a", 3<<20) + `"}`, 413, banger.BadRequest, "too large"},
		{"missing field", "POST", "/v1/kernels/pull", js, `{}`, 400, banger.BadRequest, "name"},
		{"empty field", "POST", "/v1/kernels/pull", js, `{"name":""}`, 400, banger.BadRequest, "body.name"},
		{"bad enumeration", "POST", "/v1/vms/box/kill", js, `{"signal":"HUP"}`, 400, banger.BadRequest, "body.signal"},
		{"below minimum", "POST", "/v1/vms/box/stop", js, `{"timeout_seconds":-1}`, 400, banger.BadRequest, "body.timeout_seconds"},
		{"unknown query", "GET", "/v1/vms?colour=red", "", ``, 400, banger.BadRequest, "colour"},
		{"bad query", "DELETE", "/v1/vms/box?force=perhaps", "", ``, 400, banger.BadRequest, "force"},
		{"bad name", "POST", "/v1/vms", js, `{"name":"Box"}`, 400, banger.BadRequest, "position 1"},
		{"no such size", "POST", "/v1/vms", js, `{"vcpu":1000}`, 400, banger.BadRequest, "vCPUs 1000"},
		{"bad rule", "POST", "/v1/vms", js, `{"allow":["https://example.com"]}`, 400, banger.BadRequest, "URL"},
		{"too many copies", "POST", "/v1/vms/box/fork", js, `{"count":257}`, 400, banger.BadRequest, "from 1 to 256"},
		{"bad name of copies", "POST", "/v1/vms/box/fork", js, `{"prefix":"Box"}`, 400, banger.BadRequest, "position 1"},
		{"two kernels", "POST", "/v1/images/register", js, `{"name":"i","rootfs":"/r","kernel_ref":"k","kernel":"/k"}`, 400, banger.BadRequest, "files of another"},
		{"bad kernel name", "POST", "/v1/kernels/pull", js, `{"name":"a b"}`, 400, banger.BadRequest, "a b"},
		{"bad kernel reference", "POST", "/v1/kernels/pull", js, `{"name":"a/B:"}`, 400, banger.BadRequest, "a/B:"},
		{"relative path", "POST", "/v1/kernels/import", js, `{"name":"k","from":"here"}`, 400, banger.BadRequest, "absolute"},
		{"no such VM", "GET", "/v1/vms/nobody", "", ``, 404, banger.NotFound, "nobody"},
		{"no such VM to start", "POST", "/v1/vms/nobody/start", js, `{}`, 404, banger.NotFound, "nobody"},
		{"no such VM to fork", "POST", "/v1/vms/nobody/fork", js, `{}`, 404, banger.NotFound, "nobody"},
		{"no such VM to restore", "POST", "/v1/vms/nobody/snapshots/one/restore", js, `{}`, 404, banger.NotFound, "nobody"},
		{"no such VM with a snapshot", "DELETE", "/v1/vms/nobody/snapshots/one", "", ``, 404, banger.NotFound, "nobody"},
		{"bad snapshot name", "POST", "/v1/vms/box/snapshots", js, `{"name":"a b"}`, 400, banger.BadRequest, "a b"},
		{"bad kernel reference", "POST", "/v1/kernels/pull", js, `{"name":"a/B:"}`, 400, banger.BadRequest, "a/B:"},
		{"no such image", "GET", "/v1/images/nothing", "", ``, 404, banger.NotFound, "nothing"},
		{"no such kernel", "DELETE", "/v1/kernels/nothing", "", ``, 404, banger.NotFound, "nothing"},
		{"no such operation", "DELETE", "/v1/operations/nothing", "", ``, 404, banger.NotFound, "operation"},
		{"unknown route", "GET", "/v1/nothing", "", ``, 404, banger.UnknownMethod, "/v1/nothing"},
		{"unknown version", "GET", "/v2/vms", "", ``, 404, banger.UnknownMethod, "/v2/vms"},
		{"unknown method", "PUT", "/v1/vms", js, `{}`, 404, banger.UnknownMethod, "PUT"},
		{"unclean path", "GET", "/v1//vms", "", ``, 404, banger.UnknownMethod, "/v1//vms"},
	} {
		resp, body := h.raw(t, c.method, c.path, c.contentType, c.body)
		var p api.Problem
		if err := json.Unmarshal(body, &p); err != nil {
			t.Errorf("%s: %s: %s", c.name, err, body)
			continue
		}
		if resp.StatusCode != c.status || p.Status != c.status || p.Code != c.code || !strings.Contains(p.Title, c.says) {
			t.Errorf("%s: got %d %s, want %d %s saying %q", c.name, resp.StatusCode, body, c.status, c.code, c.says)
		}
		if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("%s: content type %q", c.name, got)
		}
		if resp.Header.Get(api.LevelHeader) != api.Level || resp.Header.Get(api.BuildHeader) == "" {
			t.Errorf("%s: the answer does not say whose it is: %v", c.name, resp.Header)
		}
	}
	if all, err := h.client.VMs(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("the refused requests left %v, %v", all, err)
	}
}

func TestBodiesThatMayBeLeftOutMay(t *testing.T) {
	h := open(t, &fakeVMs{})
	if _, err := h.client.CreateVM(t.Context(), api.CreateVM{Name: "box"}, nil); err != nil {
		t.Fatal(err)
	}
	resp, body := h.raw(t, "POST", "/v1/vms/box/kill", "", "")
	var v api.VM
	if err := json.Unmarshal(body, &v); err != nil || resp.StatusCode != 200 || v.LastError != "KILL" {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}

// The document is generated from the routes; the table in the package of
// types is for people. They must not differ.
func TestOpenAPIAndTheTableOfRoutesAgree(t *testing.T) {
	source, err := os.ReadFile("../api/doc.go")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^//\t(GET|POST|PATCH|DELETE) +(/v1\S*)`).FindAllStringSubmatch(string(source), -1) {
		path, _, _ := strings.Cut(m[2], "?")
		path = strings.NewReplacer("/REF", "/{ref}", "/SNAPSHOT", "/{snapshot}", "/NAME", "/{ref}", "/ID", "/{id}").Replace(path)
		want[m[1]+" "+path] = true
	}
	delete(want, "GET /v1/openapi.json") // the document itself
	_, body := open(t, &fakeVMs{}).raw(t, "GET", "/v1/openapi.json", "", "")
	var doc struct {
		OpenAPI    string
		Paths      map[string]map[string]struct{ OperationID string }
		Components struct {
			Schemas map[string]struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for path, methods := range doc.Paths {
		for method := range methods {
			got[strings.ToUpper(method)+" "+path] = true
		}
	}
	for route := range want {
		if !got[route] {
			t.Errorf("the document lacks %s", route)
		}
	}
	for route := range got {
		if !want[route] {
			t.Errorf("the table lacks %s", route)
		}
	}
	if len(want) < 25 || doc.Components.Schemas["VM"].Properties["guest_ip"] == nil || doc.Components.Schemas["Problem"].Properties["code"] == nil {
		t.Errorf("%d routes; schemas: %v", len(want), doc.Components.Schemas)
	}
}

// post sends a request that ends with ctx and nothing else.
func (h *house) post(ctx context.Context, path, body string) ([]byte, error) {
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", h.dirs.Socket())
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://x"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

func (h *house) log(t *testing.T) string {
	t.Helper()
	log, err := os.ReadFile(h.dirs.DaemonLog())
	if err != nil {
		t.Fatal(err)
	}
	return string(log)
}
