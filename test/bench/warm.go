package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"banger/internal/template"
)

// limit is how long the template of the first boot may take.
const limit = 2 * time.Minute

func (b *benchmark) warmRun() error {
	cache := template.Cache{Dir: filepath.Join(b.w.Home, ".cache", "banger", "templates")}
	t, err := awaitTemplate(cache)
	if err != nil {
		return err
	}
	pool := template.Pool{Cache: cache}
	defer pool.Close()
	fork, err := pool.Open(context.Background(), t.ID)
	if err != nil {
		return err
	}
	defer fork.Close()
	var figures, floors []time.Duration
	for range quickFor { // in turn, so that both see the same machine
		one, err := timed(1, func() error { return b.floor.RestoreAndExec(fork) })
		if err != nil {
			return err
		}
		floors = append(floors, one...)
		if one, err = timed(1, b.command("run", "--rm", "--", "true")); err != nil {
			return err
		}
		figures = append(figures, one...)
	}
	timeRow("warm vm run --rm -- true", 350*time.Millisecond, figures, floors)
	return nil
}

// awaitTemplate waits for the template of the first cold boot.
func awaitTemplate(c template.Cache) (template.Template, error) {
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(time.Second) {
		all, err := c.List()
		if err != nil {
			return template.Template{}, err
		}
		if len(all) > 0 {
			return all[0], nil
		}
	}
	return template.Template{}, errors.New("no template was made")
}
