package workspace

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// teller is a guest that counts how often it is asked, and may say something else
// the first time.
type teller struct {
	standIn
	asked int
	twist func(said []byte) []byte
}

func (l *teller) Run(ctx context.Context, c Command) (int, error) {
	l.asked++
	if l.asked > 1 || l.twist == nil {
		return l.standIn.Run(ctx, c)
	}
	var said bytes.Buffer
	to := c.Stdout
	c.Stdout = &said
	status, err := l.standIn.Run(ctx, c)
	_, _ = to.Write(l.twist(said.Bytes()))
	return status, err
}

// Files come as they are, at one go, and where they are not what the tree names, all
// of it is asked for once more, as objects.
func TestFilesComeAsTheyAreOrElseAsObjects(t *testing.T) {
	for what, c := range map[string]struct {
		host, guest string
		twist       func([]byte) []byte
		asked       int
	}{
		"files, links and names": {
			guest: `echo x >>README; ln -sf x link; rm run; chmod +x dir/deep/file; : >empty; echo x >'-T'; printf x >"$(printf 'a\nb ü')"; ln dir/deep/file twice`, asked: 1,
		},
		"a link where a directory was": {guest: "mv dir moved; ln -s moved dir", asked: 1},
		"a directory where a file was": {guest: "rm run; mkdir -p run/on; echo x >run/on/x", asked: 1},
		"commits":                      {guest: "echo x >>README; git commit -qam x; echo x >>run", asked: 1},
		"other ends of lines":          {host: "echo '*.txt text eol=crlf' >.gitattributes; git add .gitattributes", guest: `printf 'a\r\n' >a.txt`, asked: 2},
		"a file that was written to meanwhile": {
			guest: "echo before >>README",
			twist: func(said []byte) []byte { return bytes.Replace(said, []byte("before"), []byte("behind"), 1) }, asked: 2,
		},
		"a tar that knows no such options": {
			guest: `echo x >>README; mkdir ~/bin; printf '#!/bin/sh\nexit 1\n' >~/bin/tar; chmod +x ~/bin/tar`, asked: 2,
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := furnished(t)
			r.onHost(c.host)
			r.mustDeliver(Options{})
			r.there(c.guest)
			t.Setenv("PATH", r.home+"/bin:"+os.Getenv("PATH"))
			g := &teller{standIn: standIn{r.home}, twist: c.twist}
			w, err := TakeOut(context.Background(), g, r.scratch(), r.taking(""))
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if g.asked != c.asked {
				t.Errorf("the guest was asked %d times, want %d", g.asked, c.asked)
			}
			r.apply(w)
			r.sameFiles()
		})
	}
}

// archive is what a guest says of files, before its pack.
func archive(t testing.TB, headers ...tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := h.PAXRecords["content"]
		h.PAXRecords, h.Size, h.Mode = nil, int64(len(content)), 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// large begins an archive that seems to hold more than is taken.
func large(t testing.TB) string {
	t.Helper()
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: largestPack + 1}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Of an archive nothing counts but contents: neither where they say they belong nor
// what else it holds.
func TestAGuestsArchiveIsContentsAlone(t *testing.T) {
	f := newForgery(t)
	r, base, there := f.field()
	content := "evil\nblob\ndata 3\nfoo\nreset refs/heads/none\n"
	now := f.tree(item{"40000", "dir", there[3]}, item{"100644", "good", f.blob(content)}, item{"120000", "out", there[2]})
	said := func(files string) func(io.Writer) int {
		pack := f.send(base, now, append(there, now)...)
		return func(to io.Writer) int {
			var b bytes.Buffer
			pack(&b)
			_, _ = io.WriteString(to, strings.Replace(b.String(), "\n", " files\n"+files, 1))
			return 0
		}
	}
	evil := func(h tar.Header) tar.Header {
		h.PAXRecords = map[string]string{"content": content}
		return h
	}
	up := evil(tar.Header{Typeflag: tar.TypeReg, Name: "../canary/file"})
	all := archive(t,
		tar.Header{Typeflag: tar.TypeSymlink, Name: "x", Linkname: "../canary"}, tar.Header{Typeflag: tar.TypeDir, Name: "../new/"},
		tar.Header{Typeflag: tar.TypeLink, Name: "y", Linkname: "/etc/passwd"}, tar.Header{Typeflag: tar.TypeFifo, Name: "objects/pack/fifo"},
		tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}, up, evil(tar.Header{Typeflag: tar.TypeReg, Name: "config"}))
	for what, files := range map[string]string{
		"another content": strings.Replace(all, "evil\n", "good\n", 2), "none": "", "an empty one": strings.Repeat("\x00", 1024),
		"half of one": all[:len(all)/2], "no end": all + strings.Repeat("\x00", 2*longestPadding), "words": "hello world\n",
		"more than there may be": large(t), "no checksum": strings.Replace(all, "ustar", "ustaR", 1),
	} {
		t.Run(what, func(t *testing.T) {
			r := *r
			r.T = t
			r.tries(said(files), base, false)
		})
	}
	if err := contentsOf(bufio.NewReader(strings.NewReader(large(t))), io.Discard); err == nil || !strings.Contains(err.Error(), "are larger") {
		t.Errorf("more than there may be: %v", err)
	}
	r.tries(said(all), base, true)
	if got, err := os.ReadFile(r.at("good")); string(got) != content || err != nil {
		t.Errorf("the host's file is %q, %v", got, err)
	}
	if got, _ := os.ReadFile(filepath.Join(filepath.Dir(r.repo), "canary/file")); string(got) != "outside\n" {
		t.Errorf("what lies beside it is %q", got)
	}
}
