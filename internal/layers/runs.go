package layers

import (
	"bytes"
	"iter"
)

// blockSize is what becomes a hole if it is all zeroes.
const blockSize = 4096

var zeroBlock [blockSize]byte

// runs cuts buf into the longest runs of blocks that are all zero or all not,
// and says which they are.
func runs(buf []byte) iter.Seq2[[]byte, bool] {
	return func(yield func([]byte, bool) bool) {
		for len(buf) > 0 {
			n, zero := block(buf)
			for n < len(buf) {
				more, same := block(buf[n:])
				if same != zero {
					break
				}
				n += more
			}
			if !yield(buf[:n], zero) {
				return
			}
			buf = buf[n:]
		}
	}
}

// block is how long the first block is, and whether it is all zeroes.
func block(buf []byte) (length int, zero bool) {
	n := min(blockSize, len(buf))
	return n, bytes.Equal(buf[:n], zeroBlock[:n])
}
