package shim

import (
	"context"
	"io"
	"net"
	"time"

	"banger/internal/vnet/reach"
)

// The parts of a shim that are large come from whoever runs one, so that those
// who only speak to shims do not link them.

// Wire is the network of a guest, at the other end of its card's cable:
// *vnet.Network. Nothing of it waits but Serve, Dial and Close.
type Wire interface {
	Serve(ctx context.Context, cable io.ReadWriteCloser, f reach.Framing) error // until the machine is gone
	Dial(ctx context.Context, port uint16) (net.Conn, error)                    // to the guest
	SetPolicy(p *reach.Policy) (ended int)
	Recall(earlier []reach.Record)
	Records() []reach.Record
	Answers() []reach.Answer              // that the guest goes by
	RecallAnswers(earlier []reach.Answer) // of a guest that stood still
	Counters() reach.Counters
	Traffic() uint64 // grows when the guest and somebody outside have something for each other
	Learn() []string
	Explain(since time.Time) string
	Close() error
}

// Layers are the files of a VM's disk, as package layers has them.
type Layers struct {
	Of      func(dir string) (base string, overlays []string, err error)
	Flatten func(ctx context.Context, dir string) error
	Take    func(ctx context.Context, from, to string, writable bool, freeze func(name string) error) error
}
