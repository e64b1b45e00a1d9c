package hostca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// authority makes a certificate, in PEM.
func authority(t *testing.T, name string, extra int) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, OrganizationalUnit: []string{strings.Repeat("x", extra)}},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestEachCertificateIsReadOnceAndNothingElse(t *testing.T) {
	debian, fedora, elsewhere := t.TempDir(), t.TempDir(), t.TempDir()
	one, two, three := authority(t, "one", 0), authority(t, "two", 0), authority(t, "three", 0)
	key := []byte("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
	write(t, debian+"/a.crt", bytes.Join([][]byte{[]byte("# ours\n"), key, one, two}, nil))
	write(t, debian+"/sub/b.crt", one)
	write(t, debian+"/c.pem", three) // no tool of Debian's takes it
	write(t, elsewhere+"/d", three)
	if err := os.Symlink(elsewhere+"/d", fedora+"/d"); err != nil {
		t.Fatal(err)
	}
	write(t, fedora+"/sub/e", authority(t, "no tool of Fedora's takes it", 0))
	got, problems := Read([]Dir{{debian, ".crt", true}, {fedora, "", false}, {debian + "/missing", "", true}})
	if want := bytes.Join([][]byte{one, two, three}, nil); !bytes.Equal(got, want) || len(problems) > 0 {
		t.Errorf("%q, %q; want %q", got, problems, want)
	}
}

func TestBrokenFilesAreNamedAndLeftOut(t *testing.T) {
	dir := t.TempDir()
	good := authority(t, "good", 0)
	broken := append(bytes.Clone(good), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("none")})...)
	write(t, dir+"/broken.crt", broken)
	write(t, dir+"/empty.crt", nil)
	write(t, dir+"/huge.crt", bytes.Repeat(good, maxFile/len(good)+1))
	if err := unix.Mkfifo(dir+"/pipe.crt", 0o600); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"zero.crt": "/dev/zero", "gone.crt": "nowhere", "dir.crt": "/tmp", "line\nfeed.crt": "nowhere"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir+"/y.crt", good)
	got, problems := Read([]Dir{{dir, ".crt", true}})
	if !bytes.Equal(got, good) {
		t.Errorf("got %q", got)
	}
	all := strings.Join(problems, "\n")
	for _, name := range []string{"broken.crt", "empty.crt", "huge.crt", "pipe.crt", "zero.crt", "gone.crt", "dir.crt", `line\nfeed.crt`} {
		if strings.Count(all, name) != 1 {
			t.Errorf("%s is not named once in %q", name, all)
		}
	}
	if len(problems) != 8 {
		t.Errorf("%q", problems)
	}
}

func TestWhatIsReadIsBounded(t *testing.T) {
	large, many := t.TempDir(), t.TempDir()
	for i := range 12 {
		write(t, fmt.Sprintf("%s/%02d.crt", large, i), authority(t, fmt.Sprint(i), 24<<10))
	}
	for i := range maxFiles + 10 {
		write(t, fmt.Sprintf("%s/%03d.crt", many, i), nil)
	}
	got, problems := Read([]Dir{{large, ".crt", true}})
	if len(got) > MaxBytes || len(got) < MaxBytes/2 || len(problems) != 1 || !strings.Contains(problems[0], large) {
		t.Errorf("%d bytes, %q", len(got), problems)
	}
	if _, problems = Read([]Dir{{many, ".crt", true}}); len(problems) != maxFiles+1 {
		t.Errorf("%d problems", len(problems))
	}
}
