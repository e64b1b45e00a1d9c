package oci

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"banger"
)

// stalled is the way to a registry that begins to answer and sends nothing.
type stalled struct{}

func (stalled) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(untilEnd{r.Context()})}, nil
}

// untilEnd fails once ctx has ended, as the body of an answer does.
type untilEnd struct{ ctx context.Context }

func (u untilEnd) Read([]byte) (int, error) {
	<-u.ctx.Done()
	return 0, u.ctx.Err()
}

func TestARegistryThatSendsNothingIsSaidTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ref, err := Parse("registry.invalid/org/app:1")
		must(t, err)
		img := &Image{Ref: ref, from: source{ref, stalled{}}}
		layer := Layer{Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("a", 64)}, Size: 100}
		err = img.Fetch(t.Context(), newCache(t), layer)
		if banger.CodeOf(err) != banger.Unavailable || !strings.Contains(err.Error(), "sent nothing for 1m0s") {
			t.Errorf("%s: %v", banger.CodeOf(err), err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := img.Fetch(ctx, newCache(t), layer); banger.CodeOf(err) != banger.Cancelled {
			t.Errorf("a cancelled one: %v", err)
		}
	})
}
