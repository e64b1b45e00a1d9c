package client

import (
	"context"
	"net/http"
	"strconv"

	"banger/internal/api"
)

// Version asks which build answers.
func (c *Client) Version(ctx context.Context) (v api.Version, err error) {
	err = c.call(ctx, http.MethodGet, "/version", nil, &v)
	return v, err
}

// Config gives the configuration in force.
func (c *Client) Config(ctx context.Context) (v api.Config, err error) {
	err = c.call(ctx, http.MethodGet, "/config", nil, &v)
	return v, err
}

// StopDaemon ends the daemon and returns when it has. While operations run
// it is busy; force cancels them.
func (c *Client) StopDaemon(ctx context.Context, force bool) error {
	if err := c.call(ctx, http.MethodPost, "/daemon/stop", api.StopDaemon{Force: force}, nil); err != nil {
		return err
	}
	if c.dirs == nil {
		return nil
	}
	return ended(ctx, *c.dirs)
}

// Images lists all images.
func (c *Client) Images(ctx context.Context) (all []api.Image, err error) {
	err = c.call(ctx, http.MethodGet, "/images", nil, &all)
	return all, err
}

// Image finds an image by reference.
func (c *Client) Image(ctx context.Context, ref string) (i api.Image, err error) {
	if ref == "" {
		return i, noReference("image")
	}
	err = c.call(ctx, http.MethodGet, at("/images", ref, ""), nil, &i)
	return i, err
}

// DeleteImage deletes an image nothing uses.
func (c *Client) DeleteImage(ctx context.Context, ref string) error {
	if ref == "" {
		return noReference("image")
	}
	return c.call(ctx, http.MethodDelete, at("/images", ref, ""), nil, nil)
}

// PullImage gets an image of the catalogue.
func (c *Client) PullImage(ctx context.Context, req api.PullImage, on Watch) (i api.Image, err error) {
	err = c.stream(ctx, "/images/pull", req, on, &i)
	return i, err
}

// RegisterImage makes an image of a file, named by an absolute path.
func (c *Client) RegisterImage(ctx context.Context, req api.RegisterImage, on Watch) (i api.Image, err error) {
	err = c.stream(ctx, "/images/register", req, on, &i)
	return i, err
}

// ImportImage makes an image of a pack, named by an absolute path.
func (c *Client) ImportImage(ctx context.Context, req api.ImportImage, on Watch) (i api.Image, err error) {
	err = c.stream(ctx, "/images/import", req, on, &i)
	return i, err
}

// ExportImage writes a pack of an image to an absolute path.
func (c *Client) ExportImage(ctx context.Context, ref string, req api.ExportImage, on Watch) (i api.Image, err error) {
	if ref == "" {
		return i, noReference("image")
	}
	err = c.stream(ctx, at("/images", ref, "/export"), req, on, &i)
	return i, err
}

// PromoteImage copies a registered image's file to banger's own directory.
func (c *Client) PromoteImage(ctx context.Context, ref string, on Watch) (i api.Image, err error) {
	if ref == "" {
		return i, noReference("image")
	}
	err = c.stream(ctx, at("/images", ref, "/promote"), nil, on, &i)
	return i, err
}

// CommitImage makes an image of a stopped VM.
func (c *Client) CommitImage(ctx context.Context, ref string, req api.CommitImage, on Watch) (i api.Image, err error) {
	if ref == "" {
		return i, noReference("VM")
	}
	err = c.stream(ctx, at("/vms", ref, "/commit"), req, on, &i)
	return i, err
}

// RenameImage gives an image another name.
func (c *Client) RenameImage(ctx context.Context, ref, name string) (i api.Image, err error) {
	if ref == "" {
		return i, noReference("image")
	}
	err = c.call(ctx, http.MethodPatch, at("/images", ref, ""), api.ChangeImage{Name: name}, &i)
	return i, err
}

// PruneCache removes what can be made again and nothing uses; with DryRun it
// only says what that is.
func (c *Client) PruneCache(ctx context.Context, req api.PruneCache) (p api.Pruned, err error) {
	err = c.call(ctx, http.MethodPost, "/images/cache/prune", req, &p)
	return p, err
}

// Kernels lists installed kernels, and with available those that could be
// pulled.
func (c *Client) Kernels(ctx context.Context, available bool) (all []api.Kernel, err error) {
	err = c.call(ctx, http.MethodGet, "/kernels?available="+strconv.FormatBool(available), nil, &all)
	return all, err
}

// Kernel finds a kernel by name or digest.
func (c *Client) Kernel(ctx context.Context, name string) (k api.Kernel, err error) {
	if name == "" {
		return k, noReference("kernel")
	}
	err = c.call(ctx, http.MethodGet, at("/kernels", name, ""), nil, &k)
	return k, err
}

// DeleteKernel deletes a kernel nothing uses.
func (c *Client) DeleteKernel(ctx context.Context, name string) error {
	if name == "" {
		return noReference("kernel")
	}
	return c.call(ctx, http.MethodDelete, at("/kernels", name, ""), nil, nil)
}

// PullKernel gets a kernel of the catalogue.
func (c *Client) PullKernel(ctx context.Context, req api.PullKernel, on Watch) (k api.Kernel, err error) {
	err = c.stream(ctx, "/kernels/pull", req, on, &k)
	return k, err
}

// ImportKernel takes a kernel from files, named by absolute paths.
func (c *Client) ImportKernel(ctx context.Context, req api.ImportKernel, on Watch) (k api.Kernel, err error) {
	err = c.stream(ctx, "/kernels/import", req, on, &k)
	return k, err
}

// Operations lists long work under way, then what ended a short while ago.
func (c *Client) Operations(ctx context.Context) (all []api.Operation, err error) {
	err = c.call(ctx, http.MethodGet, "/operations", nil, &all)
	return all, err
}

// Operation finds an operation by its id.
func (c *Client) Operation(ctx context.Context, id string) (o api.Operation, err error) {
	if id == "" {
		return o, noReference("operation")
	}
	err = c.call(ctx, http.MethodGet, at("/operations", id, ""), nil, &o)
	return o, err
}

// CancelOperation has an operation end and be undone. It does not wait for
// that.
func (c *Client) CancelOperation(ctx context.Context, id string) error {
	if id == "" {
		return noReference("operation")
	}
	return c.call(ctx, http.MethodDelete, at("/operations", id, ""), nil, nil)
}
