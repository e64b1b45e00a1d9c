package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"banger"
)

// access is what a pull takes of this environment: the daemon's own may be
// that of days ago and of another place.
func access() banger.Access {
	a := banger.Access{DockerConfig: os.Getenv("DOCKER_CONFIG")}
	if home, err := os.UserHomeDir(); a.DockerConfig == "" && err == nil {
		a.DockerConfig = filepath.Join(home, ".docker")
	}
	if !filepath.IsAbs(a.DockerConfig) {
		a.DockerConfig, _ = filepath.Abs(a.DockerConfig)
	}
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); ofAccess(name) {
			a.Env = append(a.Env, kv)
		}
	}
	return a
}

// ofAccess picks the proxies, and what docker's credential helpers look at.
func ofAccess(name string) bool {
	for _, prefix := range []string{"XDG_", "AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_", "GNUPG", "PASSWORD_STORE_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.Contains([]string{
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
		"PATH", "HOME", "USER", "LANG", "DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "GPG_TTY", "SSH_AUTH_SOCK", "REGISTRY_AUTH_FILE",
	}, name)
}
