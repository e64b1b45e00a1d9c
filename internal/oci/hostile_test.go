package oci

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
)

// What a registry may do to us, each with a part of what is said of it.
func TestHostileRegistriesAreRefusedByName(t *testing.T) {
	layer := noise(t, 200_000)
	digest, _ := layer.Digest()
	blob, _ := layer.Compressed()
	whole, _ := io.ReadAll(blob)
	isBlob := func(r *http.Request) bool { return strings.Contains(r.URL.Path, digest.String()) }
	isManifest := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }
	to := func(where string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, where, http.StatusTemporaryRedirect) }
	}
	send := func(b []byte) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusOK)
			_, _ = w.Write(b)
		}
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	for name, c := range map[string]struct {
		when func(*http.Request) bool
		do   func(http.ResponseWriter, *http.Request)
		code banger.Code
		want string
	}{
		"blob elsewhere without TLS":  {isBlob, to("http://example.com/x"), banger.BadRequest, "sends us to http://example.com, which is not https"},
		"blob in a file":              {isBlob, to("file:///etc/passwd"), banger.BadRequest, "sends us to file://"},
		"blob on this machine":        {isBlob, to("https://127.0.0.1:1/x"), banger.BadRequest, "sends us to 127.0.0.1:1, which is not on the internet"},
		"blob on this machine by v6":  {isBlob, to("https://[::ffff:127.0.0.1]/x"), banger.BadRequest, "which is not on the internet"},
		"blob in a private network":   {isBlob, to("https://10.1.2.3/x"), banger.BadRequest, "sends us to 10.1.2.3, which is not on the internet"},
		"blob of a cloud's metadata":  {isBlob, to("https://169.254.169.254/latest/meta-data"), banger.BadRequest, "which is not on the internet"},
		"a name that leads here":      {isBlob, to("https://localhost:1/x"), banger.BadRequest, "sends us to localhost:1, which is not on the internet"},
		"manifest elsewhere":          {isManifest, to("http://10.1.2.3/x"), "", "10.1.2.3"},
		"flipped blob":                {isBlob, send(flipped), banger.BadRequest, "was sent with the digest sha256:"},
		"other blob":                  {isBlob, send(bytes.Repeat([]byte("x"), len(whole))), banger.BadRequest, "was sent with the digest sha256:"},
		"blob that does not end":      {isBlob, send(append(bytes.Clone(whole), "more"...)), banger.BadRequest, fmt.Sprintf("has more than the %d bytes", len(whole))},
		"blob that is gone":           {isBlob, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }, banger.NotFound, "no longer has the blob"},
		"blob that never comes whole": {isBlob, send(nil), banger.Unavailable, "ends after 0 of"},
		"endless manifest": {isManifest, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			for more := error(nil); more == nil; { // until nobody reads it
				_, more = w.Write(bytes.Repeat([]byte(" "), 1<<20))
			}
		}, banger.BadRequest, "has more than 4194304 bytes"},
		"other manifest": {isManifest, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			_, _ = io.WriteString(w, `{"schemaVersion":2}`)
		}, banger.Unavailable, "manifest digest"},
		"layer without a digest": {isManifest, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			_, _ = io.WriteString(w, `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"`+digest.String()+`"},"layers":[{"size":1}]}`)
		}, "", "no sha256"},
		"token from this machine": {func(r *http.Request) bool { return r.URL.Path == "/v2/" }, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="https://127.0.0.1:1/token",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		}, banger.Unavailable, "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open1(t)
			pushed := s.push(t, "one", layer)
			s.on(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if r.Method == http.MethodGet && c.when(r) {
					c.do(w, r)
					return
				}
				next.ServeHTTP(w, r)
			})
			ref := "one"
			if name == "other manifest" { // a tag may mean anything, a digest one thing
				d, _ := pushed.Digest()
				ref += "@" + d.String()
			}
			cache := newCache(t)
			_, err := s.get(t, ref, cache)
			if err == nil || !strings.Contains(err.Error(), c.want) || c.code != "" && banger.CodeOf(err) != c.code {
				t.Errorf("%s: %v, want %q", banger.CodeOf(err), err, c.want)
			}
			if _, err := os.Stat(cache.path(digest)); err == nil {
				t.Error("it is in the cache")
			}
		})
	}
}

func TestOnlyThisMachineMayDoWithoutTLS(t *testing.T) {
	for registry, want := range map[string]bool{"127.0.0.1:5000": true, "localhost:5000": true, "[::1]:5000": true, "10.0.0.1:5000": false, "registry.local:80": false, "localhost.example.com": false} {
		if g := newGuard(registry, banger.Access{}); g.plain() != want {
			t.Errorf("%s: %v", registry, g.plain())
		}
	}
	g := newGuard("10.0.0.1:5000", banger.Access{})
	req, _ := http.NewRequest(http.MethodGet, "http://10.0.0.1:5000/v2/", nil)
	if _, err := g.RoundTrip(req); err == nil || !strings.Contains(err.Error(), "speaks no TLS") {
		t.Error(err)
	}
}

func TestPublicAddresses(t *testing.T) {
	for ip, want := range map[string]bool{
		"8.8.8.8": true, "2001:4860:4860::8888": true, "192.0.2.1": true,
		"0.0.0.0": false, "10.0.0.1": false, "100.64.0.1": false, "127.1.2.3": false, "169.254.1.1": false, "172.31.0.1": false,
		"192.168.1.1": false, "224.0.0.1": false, "255.255.255.255": false, "::1": false, "::": false, "fe80::1": false, "fd00::1": false,
		"::ffff:10.0.0.1": false, "64:ff9b::7f00:1": false,
	} {
		if public(netip.MustParseAddr(ip)) != want {
			t.Errorf("%s: %v", ip, !want)
		}
	}
}

// lockedShop shows things only to user "me" with the password "pass".
func lockedShop(t *testing.T) *shop {
	s := open1(t)
	s.push(t, "one", layerOf(t, "a", "1"))
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:pass"))
	s.on(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Header.Get("Authorization") != want {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
	return s
}

func TestCredentialsAreThoseOfDocker(t *testing.T) {
	s := lockedShop(t)
	bin := t.TempDir()
	helper := "#!/bin/sh\nread -r server\n[ \"$server\" = \"$WANT_SERVER\" ] || { echo credentials not found in native keychain; exit 1; }\necho '{\"Username\":\"me\",\"Secret\":\"pass\"}'\n"
	must(t, os.WriteFile(filepath.Join(bin, "docker-credential-test"), []byte(helper), 0o700))
	env := []string{"PATH=" + bin + ":/usr/bin:/bin", "WANT_SERVER=" + s.host}
	auth := base64.StdEncoding.EncodeToString([]byte("me:pass"))
	for name, c := range map[string]struct {
		config string
		want   banger.Code
	}{
		"of the file":                {fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, s.host, auth), ""},
		"by address":                 {fmt.Sprintf(`{"auths":{"https://%s/v2/":{"username":"me","password":"pass"}}}`, s.host), ""},
		"of a helper":                {fmt.Sprintf(`{"credHelpers":{%q:"test"}}`, s.host), ""},
		"of the store":               {`{"credsStore":"test"}`, ""},
		"of nobody":                  {`{}`, banger.Unauthorized},
		"wrong":                      {fmt.Sprintf(`{"auths":{%q:{"username":"me","password":"no"}}}`, s.host), banger.Unauthorized},
		"of another registry":        {fmt.Sprintf(`{"auths":{"example.com":{"auth":%q}}}`, auth), banger.Unauthorized},
		"no JSON":                    {`{`, banger.BadRequest},
		"a helper that is not there": {fmt.Sprintf(`{"credHelpers":{%q:"nothing"}}`, s.host), banger.BadRequest},
		"a helper elsewhere":         {fmt.Sprintf(`{"credHelpers":{%q:"../../tmp/x"}}`, s.host), banger.BadRequest},
	} {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(c.config), 0o600))
		ref, _ := Parse(s.host + "/one")
		_, err := Find(t.Context(), ref, banger.Access{DockerConfig: dir, Env: env}, newCache(t))
		if banger.CodeOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "pass") && !strings.Contains(err.Error(), "password") {
			t.Errorf("%s: the error tells the secret: %v", name, err)
		}
	}
}

func TestNoLayerOfTheCacheIsTakenForAConfiguration(t *testing.T) {
	s, cache := open1(t), newCache(t)
	layer := noise(t, 200_000)
	s.push(t, "one", layer)
	if _, err := s.get(t, "one", cache); err != nil {
		t.Fatal(err)
	}
	digest, _ := layer.Digest()
	for size, want := range map[int]string{100: "other than the 100 bytes", -1: "its configuration has -1 bytes"} {
		s.on(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			_, _ = fmt.Fprintf(w, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[],
				"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":%d,"digest":%q}}`, size, digest)
		})
		if _, err := s.get(t, "one", cache); banger.CodeOf(err) != banger.BadRequest || !strings.Contains(err.Error(), want) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
