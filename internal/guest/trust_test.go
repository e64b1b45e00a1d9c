package guest

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestCertificatesOfTheHostComeAndGo(t *testing.T) {
	const image, one, two = "the image's\n", "-----one-----\n", "-----two, which is longer-----\n"
	root := t.TempDir()
	real := filepath.Join(root, "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem")
	link := root + "/etc/pki/tls/certs/ca-bundle.crt"
	for _, file := range []string{real, link} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(real, []byte(image), 0o444); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../ca-trust/extracted/pem/tls-ca-bundle.pem", link); err != nil {
		t.Fatal(err)
	}
	is := func(file, want string) {
		t.Helper()
		if got, _ := os.ReadFile(file); string(got) != want {
			t.Errorf("%s has %q, not %q", file, got, want)
		}
	}
	agent := &trust{root: root}
	for _, step := range []struct {
		what, text string
		before     func()
		want       string
	}{
		{"never on", "", nil, image},
		{"on", one, nil, image + trustBegin + one + trustEnd},
		{"again", one, nil, image + trustBegin + one + trustEnd},
		{"after a boot", one, func() { agent = &trust{root: root} }, image + trustBegin + one + trustEnd},
		{"others", two, nil, image + trustBegin + two + trustEnd},
		{"fewer", one, nil, image + trustBegin + one + trustEnd},
		{"the image's tools wrote it", one, func() { _ = os.WriteFile(real, []byte("new"), 0o444) }, "new\n" + trustBegin + one + trustEnd},
		{"a power cut", one, func() {
			agent = &trust{root: root}
			_ = os.WriteFile(real, []byte(image+trustBegin+one[:5]), 0o444)
		}, image + trustBegin + one + trustEnd},
		{"off after a boot", "", func() { agent = &trust{root: root} }, image},
		{"on and", two, nil, image + trustBegin + two + trustEnd},
		{"off", "", nil, image},
	} {
		if step.before != nil {
			step.before()
		}
		if err := agent.apply(step.text); err != nil {
			t.Errorf("%s: %v", step.what, err)
		}
		if got, _ := os.ReadFile(real); string(got) != step.want {
			t.Errorf("%s: %q, not %q", step.what, got, step.want)
		}
		is(root+trustFile, step.text)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode().IsRegular() {
		t.Errorf("the link is %v, %v", info.Mode(), err)
	}
	if exists(root+trustFile) || exists(root+bundles[0]) {
		t.Error("something is left")
	}
}

func TestCertificatesNeedNoBundleInTheImage(t *testing.T) {
	agent := &trust{root: t.TempDir()}
	if err := agent.apply("-----one-----\n"); err != nil || !exists(agent.root+bundles[0]) {
		t.Fatalf("there is no bundle: %v", err)
	}
	if got, want := trustEnv(agent.root, "x"), []string{"NODE_EXTRA_CA_CERTS=" + trustFile, "SSL_CERT_FILE=" + bundles[0]}; !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
	if err := agent.apply(""); err != nil || exists(agent.root+bundles[0]) || trustEnv(agent.root, "") != nil {
		t.Errorf("a bundle is left: %v", err)
	}
}
