package e2e

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// Docker as Debian has it, with either init. It takes minutes, so it has a
// target of its own: make test-docker.

// dockerReady waits for an engine that somebody starts, and says with which
// storage driver it did. The engine's own first look around takes half a minute
// under emulation, and several times that on a busy host.
const dockerReady = `end=$(($(date +%s) + 240))
until docker info >/dev/null 2>&1 || [ $(date +%s) -gt $end ]; do sleep 0.5; done
docker info -f '{{.Driver}}'`

// dockerBuild makes an image without a registry: of a static busybox, with
// commands that run in it.
const dockerBuild = `set -e; mkdir -p /root/build/base/bin /root/build/www; cd /root/build
cp /bin/busybox base/bin/; echo from a container >www/index.html
tar c -C base . | docker import - base:1 >/dev/null
cat >Dockerfile <<'END'
FROM base:1
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN echo built >/built
COPY www /www
CMD ["httpd", "-f", "-p", "80", "-h", "/www"]
END
DOCKER_BUILDKIT=0 docker build -q -t web . >/dev/null
docker run --rm web cat /built`

func TestDockerRunsInAGuest(t *testing.T) {
	if os.Getenv("BANGER_TEST_DOCKER") == "" {
		t.Skip("it takes minutes: make test-docker")
	}
	w, hosts := shared, archives(t)
	w.start(t, "docker", append([]string{"--memory", "1024"}, natRules(t, hosts)...)...)
	w.giveSources(t, "docker")
	w.must(t, "exec", "docker", "--", "apt-get", "-q", "update")
	w.must(t, "exec", "docker", "--", "sh", "-c", "DEBIAN_FRONTEND=noninteractive apt-get -o Dpkg::Options::=--force-unsafe-io "+
		"install -qy --no-install-recommends docker.io apparmor iptables busybox-static && apt-get clean")
	// Nobody but a person starts it, and none of its modules is loaded.
	w.must(t, "exec", "docker", "--", "sh", "-c", "dockerd >/var/log/dockerd.log 2>&1 &")
	w.useDocker(t, "docker")
	w.must(t, "stop", "docker")
	w.must(t, "start", "docker")
	w.must(t, "exec", "docker", "--", "sh", "-c", "dockerd >/var/log/dockerd.log 2>&1 &")
	w.keptDocker(t, "docker")
	w.must(t, "stop", "docker")

	// systemd starts it as it starts any service.
	w.must(t, "image", "commit", "docker", "with-docker")
	t.Cleanup(func() { w.Banger("image", "delete", "with-docker") })
	w.start(t, "docker-systemd", "--memory", "1024", "--image", "with-docker", "--init", "systemd")
	w.useDocker(t, "docker-systemd")
	w.must(t, "stop", "docker-systemd", "--timeout", "30s")
	w.must(t, "start", "docker-systemd")
	w.keptDocker(t, "docker-systemd")
	w.must(t, "rm", "-f", "docker-systemd") // before its image
}

// useDocker builds an image, runs it and asks it from the host.
func (w home) useDocker(t *testing.T, vm string) {
	t.Helper()
	if got := w.must(t, "exec", vm, "--", "sh", "-c", dockerReady); got != "overlay2" {
		t.Fatalf("the storage driver is %q", got)
	}
	if got := w.must(t, "exec", vm, "--", "sh", "-c", dockerBuild); got != "built" {
		t.Fatalf("a container of what was built says %q", got)
	}
	w.must(t, "exec", vm, "--", "docker", "run", "-d", "--restart", "always", "-p", "8080:80", "web")
	w.askContainer(t, vm)
}

// keptDocker says whether images and containers outlived a stop.
func (w home) keptDocker(t *testing.T, vm string) {
	t.Helper()
	w.must(t, "exec", vm, "--", "sh", "-c", dockerReady)
	if got := w.must(t, "exec", vm, "--", "docker", "images", "-q", "web"); got == "" {
		t.Error("the image is gone after a stop")
	}
	w.askContainer(t, vm)
}

// askContainer asks the published port on the VM's own address of the host.
func (w home) askContainer(t *testing.T, vm string) {
	t.Helper()
	address := "http://" + w.show(t, vm).HostAddress + ":8080/"
	said := ""
	// A port is forwarded before the container behind it answers.
	client := &http.Client{Timeout: 10 * time.Second}
	eventually(t, "an answer of the container at "+address, func() bool {
		r, err := client.Get(address)
		if err != nil {
			return false
		}
		defer r.Body.Close()
		text, _ := io.ReadAll(r.Body)
		said = strings.TrimSpace(string(text))
		return true
	})
	if said != "from a container" {
		t.Errorf("the container says %q", said)
	}
}
