package rootfs

import (
	"context"
	"errors"
	"io"

	"banger/internal/artifact"
)

// Place is where a layer goes in a tree. Layers are read beside each other,
// and replayed one on the other.
type Place struct {
	tree     *Tree
	layer    int32
	kept     *spooled
	below    <-chan struct{} // closed when all below has been replayed
	replayed chan struct{}
}

// Place gives the place above all that were given before.
func (t *Tree) Place() (*Place, error) {
	kept, err := spool(t.dir)
	if err != nil {
		return nil, err
	}
	p := &Place{tree: t, layer: int32(len(t.layers)), kept: kept, below: t.top, replayed: make(chan struct{})}
	t.layers, t.top = append(t.layers, kept), p.replayed
	return p, nil
}

// Add replays a layer, an uncompressed tar stream, on those below, and reads
// the stream to its end. It returns after theirs. What is wrong with it is said by
// name. After an error the tree is good for nothing but Close, and Adds above wait
// until their contexts end.
func (p *Place) Add(ctx context.Context, layer io.Reader) error {
	replayed := make(chan error, 1)
	go func() {
		err := p.replay(ctx)
		p.kept.leave(err)
		replayed <- err
	}()
	bounded := &boundedReader{r: artifact.Reader(ctx, layer), read: &p.tree.unpacked, limit: p.tree.limits.Bytes}
	_, err := io.CopyBuffer(struct{ io.Writer }{p.kept}, bounded, make([]byte, 256<<10))
	err = p.kept.end(err)
	// Where both fail, one is the consequence of the other.
	if replayErr := <-replayed; err == nil || errors.Is(err, errUnwanted) {
		err = replayErr
	}
	if err != nil {
		p.tree.broken.Store(true)
		return err
	}
	close(p.replayed)
	return nil
}

func (p *Place) replay(ctx context.Context) error {
	select {
	case <-p.below:
	case <-ctx.Done():
		return ctx.Err()
	}
	p.tree.layer = p.layer
	return p.tree.replay(&follower{s: p.kept})
}
