package daemon

import (
	"context"
	"os"

	"banger/internal/api"
	"banger/internal/build"
)

func (d *daemon) version(context.Context, *none) (api.Version, error) {
	return api.Version{
		Version: build.Version(), Commit: build.Commit(), BuildID: d.buildID, BuiltAt: build.BuiltAt(),
		PID: os.Getpid(), State: d.dirs.State, Socket: d.dirs.Socket(),
	}, nil
}

func (d *daemon) configuration(context.Context, *none) (api.Config, error) {
	c, warnings, err := d.config()
	if err != nil {
		return api.Config{}, err
	}
	out := api.Config{File: c.File, Settings: []api.Setting{}, Warnings: []string{}}
	for _, s := range c.Settings() {
		out.Settings = append(out.Settings, api.Setting(s))
	}
	for _, w := range warnings {
		out.Warnings = append(out.Warnings, string(w))
	}
	return out, nil
}

// stop answers before the daemon ends: the end waits for open requests.
func (d *daemon) stop(_ context.Context, in *struct{ Body *api.StopDaemon }) (api.StopDaemon, error) {
	how := or(in.Body)
	if err := d.operations.close(how.Force); err != nil {
		return how, err
	}
	d.quit()
	return how, nil
}

func (d *daemon) listOperations(context.Context, *none) ([]api.Operation, error) {
	return d.operations.list(), nil
}

type ofID struct {
	ID string `path:"id"`
}

func (d *daemon) showOperation(_ context.Context, in *ofID) (api.Operation, error) {
	return d.operations.find(in.ID)
}

func (d *daemon) cancelOperation(_ context.Context, in *ofID) error {
	return d.operations.cancel(in.ID)
}
