package guest

import (
	"os"
	"strings"

	"banger/internal/guestwire"
)

const (
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	defaultTerm = "xterm-256color"
)

// environment is what a command gets: the guest's defaults, the image's own,
// what belongs to the user, and what was asked for, the later over the
// earlier.
func environment(image []string, u user, dir string, r guestwire.Exec) []string {
	env := []string{"PATH=" + defaultPath, "LANG=C.UTF-8", "IS_SANDBOX=1"}
	if r.TTY {
		env = append(env, "TERM="+defaultTerm)
	}
	env = merge(env, image)
	env = merge(env, []string{"HOME=" + u.home, "USER=" + u.name, "LOGNAME=" + u.name, "PWD=" + dir})
	if u.shell != "" {
		env = merge(env, []string{"SHELL=" + u.shell})
	}
	env = merge(env, r.Env)
	if term := getenv(env, "TERM"); term != "" && !hasTerminal(term) {
		env = merge(env, []string{"TERM=" + defaultTerm})
	}
	return env
}

// merge sets each KEY=VALUE in env.
func merge(env, set []string) []string {
	for _, kv := range set {
		if i := lookupEnv(env, key(kv)); i >= 0 {
			env[i] = kv
		} else if strings.Contains(kv, "=") {
			env = append(env, kv)
		}
	}
	return env
}

func key(kv string) string {
	k, _, _ := strings.Cut(kv, "=")
	return k
}

func lookupEnv(env []string, k string) int {
	for i, kv := range env {
		if len(kv) > len(k) && kv[len(k)] == '=' && kv[:len(k)] == k {
			return i
		}
	}
	return -1
}

func getenv(env []string, k string) string {
	if i := lookupEnv(env, k); i >= 0 {
		return env[i][len(k)+1:]
	}
	return ""
}

// hasTerminal says whether the guest knows a terminal.
func hasTerminal(term string) bool {
	if term == defaultTerm {
		return true
	}
	if strings.ContainsAny(term, "/.") {
		return false
	}
	for _, dir := range []string{"/etc/terminfo/", "/lib/terminfo/", "/usr/share/terminfo/"} {
		if _, err := os.Stat(dir + term[:1] + "/" + term); err == nil {
			return true
		}
	}
	return false
}
