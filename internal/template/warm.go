package template

import (
	"archive/tar"
	"bytes"
	"context"
	"strings"
	"time"

	"banger/internal/guestlink"
	"banger/internal/guestwire"
)

// warmUp is what a guest does before it is saved, each twice: what a first
// command has to load and fault in is then in every fork.
var warmUp = [][]string{
	{"/bin/true"},
	{"true"},
	{"sh", "-c", ":"},
	{"sh", "-c", "echo warm | cat"},
}

// warm has the guest do what a VM will be asked for first.
func (w *workshop) warm(ctx context.Context, link *guestlink.Link) error {
	other := w.neutral() // from which the neutral one is a change, as a VM's from that
	other.Hostname, other.MachineID = "warm", strings.Repeat("1", len(neutralID))
	if other.Network = w.place(otherAddress); other.Network != nil {
		other.Network.Drop = true // it has no connections; forks of a fork of it will
	}
	for _, s := range []guestwire.Setup{other, w.neutral()} {
		s.TimeNanos = time.Now().UnixNano()
		if _, err := link.Setup(ctx, s); err != nil {
			return err
		}
		if _, err := link.SetClock(ctx, time.Now()); err != nil {
			return err
		}
		if err := w.awaitInit(ctx, link); err != nil {
			return err
		}
		for _, argv := range warmUp {
			if err := exec(ctx, link, argv); err != nil {
				return err
			}
		}
	}
	warmListeners(ctx, link)
	if err := warmCopies(ctx, link); err != nil {
		return err
	}
	return link.Sync(ctx)
}

// warmListeners has the guest load what it finds listeners with, and begin to
// watch for them. One that cannot has no less to offer.
func warmListeners(ctx context.Context, link *guestlink.Link) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_ = link.Listeners(ctx, func([]guestwire.Listener) { cancel() })
}

// A directory for files that nobody keeps, and what a prepare looks for first.
const warmDir = "/root/.banger-warm"

var lookedFor = []string{"/usr/bin/git", "/root/repo", "/root/.gitconfig", "/root/.config/git/config"}

// warmCopies has the guest look at paths and unpack files on its disk: a program
// that does so for the first time finds out much that it keeps. An image that cannot
// take the files away again is not given any.
func warmCopies(ctx context.Context, link *guestlink.Link) error {
	for range 2 {
		for _, path := range lookedFor {
			if _, err := link.Stat(ctx, path); err != nil {
				return err
			}
		}
		status := 0
		for _, argv := range [][]string{{"rm", "-rf", warmDir}, {"mkdir", warmDir}} {
			one, err := ended(ctx, link, argv)
			if err != nil {
				return err
			}
			status = max(status, one)
		}
		if status != 0 {
			continue
		}
		if err := link.Put(ctx, warmDir, bytes.NewReader(smallTree())); err != nil {
			return err
		}
		if err := exec(ctx, link, []string{"rm", "-rf", warmDir}); err != nil {
			return err
		}
	}
	return nil
}

// smallTree is a tar with what a repository has.
func smallTree() []byte {
	const size = 5000
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeReg, Name: "a/b/c", Size: size},
		{Typeflag: tar.TypeReg, Name: "a/b/d", Size: size},
		{Typeflag: tar.TypeLink, Name: "a/e", Linkname: "a/b/d"},
		{Typeflag: tar.TypeSymlink, Name: "a/f", Linkname: "e"},
		{Typeflag: tar.TypeDir, Name: "a/g/"},
	} {
		h.Mode, h.ModTime = 0o755, time.Unix(1, 0)
		// A buffer takes everything.
		_ = w.WriteHeader(&h)
		_, _ = w.Write(bytes.Repeat([]byte("x"), int(h.Size)))
	}
	_ = w.Close()
	return b.Bytes()
}

// exec runs a command that an image may lack: any answer has warmed up what there is.
func exec(ctx context.Context, link *guestlink.Link, argv []string) error {
	_, err := ended(ctx, link, argv)
	return err
}

// ended is the status that a command ends with.
func ended(ctx context.Context, link *guestlink.Link, argv []string) (int, error) {
	body, err := link.Conn().Call(ctx, guestwire.KindExec, guestwire.Exec{Argv: argv}.Append(nil))
	if err != nil {
		return 0, err
	}
	exit, err := guestwire.ParseExit(body)
	return int(exit.Status), err
}
