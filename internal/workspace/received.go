package workspace

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// takeFiles reads an archive of files that changed. Of them only the contents are
// taken, as objects that git names anew; where they belong, trees say.
func (q *quarantine) takeFiles(ctx context.Context, r *bufio.Reader, most bounds) error {
	contents, to := io.Pipe()
	read := make(chan error, 1)
	go func() {
		err := contentsOf(r, to)
		_ = to.CloseWithError(err)
		read <- err
	}()
	err := q.within(most).stream(ctx, contents, io.Discard, "-c", "core.bigFileThreshold=1m", "-c", "pack.compression=0", "-c", "fastimport.unpackLimit=1",
		"fast-import", "--quiet", "--depth=0")
	_ = contents.CloseWithError(errEnough)
	if readErr := <-read; readErr != nil && !errors.Is(readErr, errEnough) {
		return readErr
	}
	return err
}

// contentsOf writes what files of an archive hold as "git fast-import" reads it.
func contentsOf(r *bufio.Reader, to io.Writer) error {
	w, archive, left := bufio.NewWriterSize(to, 64<<10), tar.NewReader(r), int64(largestPack)
	for {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		var content io.Reader = archive
		size := h.Size
		switch h.Typeflag {
		case tar.TypeReg:
		case tar.TypeSymlink:
			content, size = strings.NewReader(h.Linkname), int64(len(h.Linkname))
		default: // a second name of a file; a repository's directory
			continue
		}
		if left -= size + headerSize; left < 0 {
			return fmt.Errorf("the files that changed are larger than %d bytes", int64(largestPack))
		}
		fmt.Fprintf(w, "blob\ndata %d\n", size)
		if _, err := io.CopyN(w, content, size); err != nil {
			return err
		}
		_ = w.WriteByte('\n')
	}
	return errors.Join(w.Flush(), skipPadding(r))
}

// headerSize is what each file takes up in an archive, an empty one too.
const headerSize = 512

// longestPadding is more than any tar fills its last record up with.
const longestPadding = 1 << 20

func skipPadding(r *bufio.Reader) error {
	for range longestPadding {
		next, err := r.Peek(1)
		if err != nil || next[0] != 0 {
			return err
		}
		_, _ = r.Discard(1)
	}
	return errors.New("the files that changed have no end")
}
