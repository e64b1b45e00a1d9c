package doctor

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"

	"banger"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/store"
)

func (e *exam) kernels(context.Context) {
	name := e.config.DefaultKernel
	k, err := kernel.NewStore(e.dirs.Kernels(), e.dirs.Downloads()).Get(name)
	if banger.CodeOf(err) == banger.NotFound {
		e.add("kernel", Warn, name+" is not there yet; the first VM pulls it", "banger kernel pull "+name)
		return
	}
	k.Name = name
	for _, file := range []string{k.VmlinuxPath, k.ModulesPath} {
		if err == nil {
			_, err = os.Stat(file)
		}
	}
	if err != nil {
		e.badKernel(k, fmt.Errorf("%s is incomplete: %w", name, err))
		return
	}
	e.kernel = k.VmlinuxPath
	e.pass("kernel", "%s (%s)", k.Name, k.Release)
}

// images looks at every image's files, and for the default one.
func (e *exam) images(ctx context.Context) {
	name := e.config.DefaultImage
	i, err := store.Inspect(ctx, e.dirs.Database())
	if err != nil {
		e.add("image", Warn, "cannot be told: "+err.Error())
		return
	}
	found, good := false, true
	for _, img := range i.Images {
		found = found || img.Name == name
		_, err := os.Stat(img.RootfsPath)
		if err == nil && img.WorkSeedPath != "" {
			_, err = os.Stat(img.WorkSeedPath)
		}
		if err != nil {
			err = fmt.Errorf("%s has lost its file: %w", img.Name, err)
		} else if img.Managed {
			_, _, err = image.Load(img.ArtifactDir)
		}
		if err != nil {
			good = false
			e.badImage(img, i.VMs, err)
		}
	}
	switch {
	case !found:
		e.add("image", Warn, name+" is not there yet; the first VM pulls it", "banger image pull "+name)
	case good:
		e.pass("image", "%s, of %d", name, len(i.Images))
	}
}

// tools looks for the programs banger runs. Those that make images are missed
// only until there is one.
func (e *exam) tools(context.Context) {
	var missing []string
	for _, t := range []struct {
		name    string
		verdict Verdict
		why     string
		asUser  bool
	}{
		{"mkfs.ext4", Fail, "disks are made with it", false},
		{"mmdebstrap", Warn, "images of Debian are built with it", false},
		{"newuidmap", Warn, "an ordinary user builds images with it", true},
		{"dpkg-deb", Warn, "kernel packages are unpacked with it", false},
		{"git", Warn, "repositories go into VMs with it", false},
		{"ssh", Warn, "banger vm ssh runs it", false},
	} {
		if t.asUser && e.host.uid == 0 || available(t.name) {
			continue
		}
		missing = append(missing, t.name)
		e.add("tool "+t.name, t.verdict, "missing: "+t.why, e.host.install(t.name))
	}
	if len(missing) == 0 {
		e.pass("tools", "all there")
	}
	e.subIDs()
}

// available looks where administrators' tools are, too: a user's PATH often
// lacks it.
func available(tool string) bool {
	if _, err := exec.LookPath(tool); err == nil {
		return true
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if _, err := exec.LookPath(dir + tool); err == nil {
			return true
		}
	}
	return false
}

// subIDs looks for the range of ids an ordinary user's builds need.
func (e *exam) subIDs() {
	if e.host.uid == 0 {
		return
	}
	name := e.host.user()
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		if !hasRange(file, name, e.host.uid) {
			e.add("sub-ids", Warn, fmt.Sprintf("%s has no range for %s, who needs one to build images", file, name),
				"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 "+name)
			return
		}
	}
}

func hasRange(file, name string, uid int) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		who, _, _ := strings.Cut(lines.Text(), ":")
		if who == name || who == strconv.Itoa(uid) {
			return true
		}
	}
	return false
}

func (h host) user() string {
	if u, err := user.LookupId(strconv.Itoa(h.uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(h.uid)
}
