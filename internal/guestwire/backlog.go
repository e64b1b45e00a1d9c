package guestwire

import "sync"

// backlog is what came on a channel and was not read yet, in the pieces it
// came in. Pieces are reused: a guest under emulation feels every page it has
// to touch anew.
type backlog struct {
	pieces [][]byte
	size   int // bytes in all
}

// smallPiece is the size up to which a piece is not worth keeping.
const smallPiece = 4 << 10

var pieces = sync.Pool{New: func() any { return new([MaxData]byte) }}

func (b *backlog) push(data []byte) {
	if len(data) == 0 {
		return
	}
	piece := make([]byte, 0)
	if len(data) > smallPiece && len(data) <= MaxData {
		piece = pieces.Get().(*[MaxData]byte)[:0]
	}
	b.pieces = append(b.pieces, append(piece, data...))
	b.size += len(data)
}

// pop takes the first piece. The caller gives it back with recycle.
func (b *backlog) pop() []byte {
	piece := b.pieces[0]
	b.pieces[0] = nil
	if b.pieces = b.pieces[1:]; len(b.pieces) == 0 {
		b.pieces = nil
	}
	b.size -= len(piece)
	return piece
}

// unpop puts the rest of a piece back to the front.
func (b *backlog) unpop(rest []byte) {
	b.pieces = append([][]byte{rest}, b.pieces...)
	b.size += len(rest)
}

// recycle keeps a piece that was popped whole for the next push.
func recycle(piece []byte) {
	if cap(piece) == MaxData {
		pieces.Put((*[MaxData]byte)(piece[:MaxData]))
	}
}
