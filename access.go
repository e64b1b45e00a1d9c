package banger

import (
	"slices"
	"strings"
)

// Access is what getting an image from a registry takes of the environment of
// the person who asks: the daemon's own has none of it.
type Access struct {
	DockerConfig string   `json:"docker_config,omitempty" doc:"directory of docker's config.json"`
	Env          []string `json:"env,omitempty" doc:"KEY=VALUE of proxies and of what credential helpers need"`
}

// Proxies are the variables of Env that name proxies, as KEY=VALUE.
func (a Access) Proxies() []string {
	return slices.DeleteFunc(slices.Clone(a.Env), func(kv string) bool {
		key, _, _ := strings.Cut(kv, "=")
		return !strings.HasSuffix(strings.ToLower(key), "_proxy")
	})
}

// Getenv gives the value of a variable, "" where it is not set.
func (a Access) Getenv(key string) string {
	for _, kv := range a.Env {
		if len(kv) > len(key) && kv[len(key)] == '=' && kv[:len(key)] == key {
			return kv[len(key)+1:]
		}
	}
	return ""
}
