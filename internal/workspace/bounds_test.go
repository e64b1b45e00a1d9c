package workspace

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"banger"
)

// tower is a tree of nine levels with thirty entries each, all the same.
func (f *forgery) tower(mode, id string) (top string, all []string) { return f.towerOf(9, mode, id) }

func (f *forgery) towerOf(levels int, mode, id string) (top string, all []string) {
	f.t.Helper()
	for range levels {
		var items []item
		for i := range 30 {
			items = append(items, item{mode, fmt.Sprintf("%02d", i), id})
		}
		mode, id = "40000", f.tree(items...)
		all = append(all, id)
	}
	return id, all
}

func TestAGuestsTreesAreNotLookedThroughForEver(t *testing.T) {
	f := newForgery(t)
	file, empty := f.blob("evil\n"), f.tree()
	files, fileTrees := f.tower("100644", file)
	nothing, emptyTrees := f.tower("40000", empty)
	pack := f.git(strings.Join(append(append(fileTrees, emptyTrees...), file, empty), "\n")+"\n", "pack-objects", "-q", "--stdout")
	for what, c := range map[string]struct {
		tree string
		most bounds
		says string
	}{
		"of files":                   {files, bounds{memory: 64 << 20, cpu: 60}, "more than the 64 MiB of memory"},
		"of directories of no files": {nothing, bounds{memory: 64 << 20, cpu: 1}, "more than the 1 seconds"},
	} {
		t.Run(what, func(t *testing.T) {
			q, err := newQuarantine(t.TempDir(), empty)
			if err != nil {
				t.Fatal(err)
			}
			defer q.close()
			if err := q.take(context.Background(), strings.NewReader(pack)); err != nil {
				t.Fatal(err)
			}
			if _, err = q.changes(context.Background(), empty, c.tree, c.most); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want one about %s", err, c.says)
			}
		})
	}
}

// A content that is sent once and named a thousand times would be written as often.
func TestAGuestsFilesAreWeighedBeforeTheyAreWritten(t *testing.T) {
	f := newForgery(t)
	r, base, there := f.field()
	large := f.blob(strings.Repeat("0", 17<<20))
	var items []item
	for i := range 1000 {
		items = append(items, item{"100644", fmt.Sprintf("%03d", i), large})
	}
	now := f.tree(items...)
	send := f.send(base, now, append(there, large, now)...)
	_, err := TakeOut(context.Background(), liar{send}, r.scratch(), Taking{Path: "/root/repo", Base: base})
	if banger.CodeOf(err) != banger.Conflict || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("%v", err)
	}
}

// allocated is what f takes of memory, all in all: more than it ever has at a time.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A few hundred bytes name very many files. Each is a path and two names of contents.
func TestAChangeOfManyFilesTakesLittleMemory(t *testing.T) {
	f := newForgery(t)
	r, base, there := f.field()
	tree, trees := f.towerOf(3, "100644", f.blob("evil\n"))
	now := f.tree(item{"40000", "dir", there[3]}, item{"100644", "good", there[0]}, item{"120000", "out", there[2]}, item{"40000", "x", tree})
	send := f.send(base, now, append(append(there, f.blob("evil\n"), now), trees...)...)
	const files = 30 * 30 * 30
	took := allocated(func() {
		w, err := TakeOut(context.Background(), liar{send}, r.scratch(), Taking{Path: "/root/repo", Base: base})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		if err := w.Patch(context.Background(), io.Discard); err != nil || len(w.Changes) != files {
			t.Errorf("%d changes, %v", len(w.Changes), err)
		}
	})
	if took > files*1100 {
		t.Errorf("%d bytes for %d files", took, files)
	}
}

// A text of nothing but ends of lines takes much to compare by lines.
func TestPatchesAreBoundedInMemory(t *testing.T) {
	f := newForgery(t)
	r, base, there := f.field()
	name := "the \"large\" [one]*\n"
	work := func(size int) *Work {
		t.Helper()
		lines := f.blob(strings.Repeat("\n", size))
		now := f.tree(item{"40000", "dir", there[3]}, item{"100644", "good", there[0]}, item{"120000", "out", there[2]}, item{"100644", name, lines})
		w, err := TakeOut(context.Background(), liar{f.send(base, now, append(there, lines, now)...)}, r.scratch(), Taking{Path: "/root/repo", Base: base})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Close)
		return w
	}
	err := work(largestText).patch(context.Background(), io.Discard, bounds{memory: 256 << 20})
	if banger.CodeOf(err) != banger.Conflict || !errors.As(err, new(overdrawn)) || !strings.Contains(err.Error(), "more than the 256 MiB of memory") {
		t.Errorf("%v", err)
	}
	// A larger one is given as it is.
	var b bytes.Buffer
	if err := work(largestText+1).patch(context.Background(), &b, bounds{memory: 256 << 20}); err != nil {
		t.Fatal(err)
	}
	writeFile(t, r.repo+".patch", b.String())
	r.onHost("git apply ../project.patch")
	if got, err := os.ReadFile(r.at(name)); err != nil || string(got) != strings.Repeat("\n", largestText+1) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestFilesOfAGuestsAreTakenInWithinBounds(t *testing.T) {
	q, err := newQuarantine(t.TempDir(), strings.Repeat("0", 40))
	if err != nil {
		t.Fatal(err)
	}
	defer q.close()
	from, to := io.Pipe()
	go func() {
		w := tar.NewWriter(to)
		for i := range 200_000 { // far more than the bound takes
			text := fmt.Sprint(i)
			if w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "x", Size: int64(len(text))}) != nil {
				return
			}
			_, _ = io.WriteString(w, text)
		}
		_ = w.Close()
		_ = to.Close()
	}()
	err = q.takeFiles(context.Background(), bufio.NewReader(from), bounds{memory: 6 << 20, cpu: 60})
	_ = from.Close()
	if !errors.As(err, new(overdrawn)) {
		t.Errorf("%v", err)
	}
}

func TestMailsAreNotKeptInMemory(t *testing.T) {
	many := func(to io.Writer) int {
		_, _ = io.WriteString(to, "clean\n")
		mail := bytes.Repeat([]byte("a mail\n"), 10_000)
		for range 1000 {
			_, _ = to.Write(mail)
		}
		return 0
	}
	id := strings.Repeat("0", 40)
	var n counter
	took := allocated(func() {
		if dirty, err := Mailbox(context.Background(), liar{many}, Taking{Path: "/root/repo", Base: id, Head: id}, &n); dirty || err != nil {
			t.Errorf("%v, %v", dirty, err)
		}
	})
	if n != 70_000_000 || took > 1<<20 {
		t.Errorf("%d bytes of memory for %d of mails", took, n)
	}
	if err := copyUpTo(5, &n, strings.NewReader("12345")); err != nil {
		t.Error(err)
	}
	if err := copyUpTo(5, &n, strings.NewReader("123456")); banger.CodeOf(err) != banger.Conflict {
		t.Errorf("more than there may be: %v", err)
	}
}

type counter int

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }
