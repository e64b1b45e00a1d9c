package oci

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"banger"
)

// source is a repository of a registry, with the right to read it.
type source struct {
	ref       Ref
	transport http.RoundTripper // a transport.Wrapper, which knows whether there is TLS
}

// dial logs in, with what docker would use, else as nobody.
func dial(ctx context.Context, ref Ref, access banger.Access) (source, error) {
	registry := ref.Context().Registry
	auth, err := credentials(ctx, registry.RegistryStr(), access)
	if err != nil {
		return source{}, err
	}
	g := newGuard(registry.RegistryStr(), access)
	retrying := transport.NewRetry(g, transport.WithRetryPredicate(worthAnother))
	wrapped, err := transport.NewWithContext(ctx, registry, auth, retrying, []string{ref.Context().Scope(transport.PullScope)})
	if err != nil && auth != authn.Anonymous && refused(err) {
		return source{}, fmt.Errorf("with the credentials of %s: %w", access.DockerConfig, err)
	}
	if err != nil {
		return source{}, err
	}
	return source{ref, wrapped}, nil
}

// blob asks for a blob from an offset on. The status is 206 where it begins
// there.
func (s source) blob(ctx context.Context, digest string, offset, size int64) (*http.Response, error) {
	u := url.URL{Scheme: "https", Host: s.ref.Context().RegistryStr(), Path: "/v2/" + s.ref.Context().RepositoryStr() + "/blobs/" + digest}
	req, err := http.NewRequestWithContext(context.WithValue(ctx, long{}, true), http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept-Encoding", "identity") // else what is sent need not be the blob
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, size-1))
	}
	client := http.Client{Transport: s.transport}
	return client.Do(req)
}

// long marks requests whose answers may be.
type long struct{}

// worthAnother says whether a request that failed may be tried again by
// itself: what was refused would be refused again.
func worthAnother(err error) bool {
	var e *banger.Error
	var n net.Error
	return !errors.As(err, &e) && errors.As(err, &n) && n.Timeout()
}

// silence is how long a registry may send nothing.
const silence = 60 * time.Second

func refused(err error) bool {
	var e *transport.Error
	return errors.As(err, &e) && (e.StatusCode == http.StatusUnauthorized || e.StatusCode == http.StatusForbidden)
}

// explain turns what a registry or the way to it said into an error for people.
func explain(ctx context.Context, err error, ref Ref) error {
	var known *banger.Error
	var said *transport.Error
	host := ref.Context().RegistryStr()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return banger.Errorf(banger.Cancelled, "it was cancelled: %w", ctx.Err())
	case errors.As(err, &known):
		return known
	case errors.As(err, &said) && said.StatusCode == http.StatusNotFound:
		return banger.Errorf(banger.NotFound, "%s has no such image", host)
	case refused(err):
		return banger.Errorf(banger.Unauthorized, "%s has no such image, or shows it only to those who logged in: %w", host, err).
			Hint("docker login %s", host)
	case errors.As(err, &said) && said.StatusCode == http.StatusTooManyRequests:
		return banger.Errorf(banger.Unavailable, "%s was asked too often: %w", host, err).Hint("docker login %s", host)
	case errors.As(err, &said):
		return banger.Errorf(banger.Unavailable, "%s answers: %w", host, err)
	}
	return banger.Errorf(banger.Unavailable, "%w", err).
		Hint("curl -I %s://%s/v2/ says whether this host reaches it; HTTPS_PROXY is heeded", ref.Context().Scheme(), host)
}
