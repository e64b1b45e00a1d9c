package oci

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"banger"
)

// dockerConfig is what is of interest in docker's config.json.
type dockerConfig struct {
	Auths       map[string]dockerAuth `json:"auths"`
	CredHelpers map[string]string     `json:"credHelpers"`
	CredsStore  string                `json:"credsStore"`
}

type dockerAuth struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// credentials looks where docker and podman do. Who has none there is nobody.
func credentials(ctx context.Context, registry string, access banger.Access) (authn.Authenticator, error) {
	for _, file := range configFiles(access) {
		b, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var c dockerConfig
		if err == nil {
			err = json.Unmarshal(b, &c)
		}
		if err != nil {
			return nil, banger.Errorf(banger.BadRequest, "cannot read credentials from %s: %w", file, err)
		}
		auth, err := c.of(ctx, registry, access)
		if err != nil {
			return nil, banger.Errorf(banger.BadRequest, "cannot use the credentials of %s: %w", file, err)
		}
		if auth != nil {
			return authn.FromConfig(*auth), nil
		}
	}
	return authn.Anonymous, nil
}

func configFiles(access banger.Access) (files []string) {
	if access.DockerConfig != "" {
		files = append(files, filepath.Join(access.DockerConfig, "config.json"))
	}
	if file := access.Getenv("REGISTRY_AUTH_FILE"); file != "" {
		files = append(files, file)
	}
	if dir := access.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		files = append(files, filepath.Join(dir, "containers", "auth.json"))
	}
	return files
}

// of gives what there is for a registry: of its own helper, of the store, or
// of the file.
func (c dockerConfig) of(ctx context.Context, registry string, access banger.Access) (*authn.AuthConfig, error) {
	server := registry
	if registry == name.DefaultRegistry {
		server = authn.DefaultAuthKey
	}
	for key, helper := range c.CredHelpers {
		if bare(key) == bare(server) {
			return ask(ctx, helper, key, access)
		}
	}
	if c.CredsStore != "" {
		if auth, err := ask(ctx, c.CredsStore, server, access); auth != nil || err != nil {
			return auth, err
		}
	}
	for key, a := range c.Auths {
		if bare(key) == bare(server) {
			return a.config()
		}
	}
	return nil, nil
}

// bare is the host of a key, which may be a whole address.
func bare(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, _, _ := strings.Cut(key, "/")
	if host == "docker.io" || host == "registry-1.docker.io" {
		return name.DefaultRegistry
	}
	return host
}

func (a dockerAuth) config() (*authn.AuthConfig, error) {
	out := &authn.AuthConfig{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
	if a.Auth != "" {
		plain, err := base64.StdEncoding.DecodeString(a.Auth)
		user, password, ok := strings.Cut(string(plain), ":")
		if err != nil || !ok {
			return nil, errors.New(`"auth" is no base64 of USER:PASSWORD`)
		}
		out.Username, out.Password = user, strings.TrimRight(password, "\x00")
	}
	if *out == (authn.AuthConfig{}) {
		return nil, nil
	}
	return out, nil
}

// helperTime is how long a credential helper may take: it may ask a person.
const helperTime = 2 * time.Minute

// ask runs a credential helper, with the environment of who asks for the
// image. nil means that it has nothing for the server.
func ask(ctx context.Context, helper, server string, access banger.Access) (*authn.AuthConfig, error) {
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	program, err := lookHelper("docker-credential-"+helper, access.Getenv("PATH"))
	if err != nil {
		return nil, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, "get")
	cmd.Env, cmd.Dir = access.Env, "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(server), &stdout, &stderr
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(stdout.String() + " " + stderr.String())
		if strings.Contains(said, "credentials not found") {
			return nil, nil
		}
		return nil, banger.Errorf(banger.Unavailable, "%s: %s (%w)", program, said, err)
	}
	var got struct{ Username, Secret string }
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		return nil, banger.Errorf(banger.Unavailable, "%s answers no credentials: %w", program, err)
	}
	if got.Username == "<token>" {
		return &authn.AuthConfig{IdentityToken: got.Secret}, nil
	}
	return &authn.AuthConfig{Username: got.Username, Password: got.Secret}, nil
}

func lookHelper(program, path string) (string, error) {
	if strings.Contains(program, "/") {
		return "", banger.Errorf(banger.BadRequest, "%s is no name of a credential helper", program)
	}
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		file := filepath.Join(dir, program)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", banger.Errorf(banger.Unavailable, "%s is not installed", program)
}
