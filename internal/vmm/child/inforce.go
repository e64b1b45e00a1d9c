package child

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// oomScore has the kernel take a child before what else the user runs, a shim and
// a daemon too, unless that has 30 % more of the memory.
const oomScore = 300

// prefer makes a process the kernel's choice where memory runs out. A higher score
// it has stays.
func prefer(pid int) {
	path := fmt.Sprintf("/proc/%d/oom_score_adj", pid)
	if oomScoreOf(path) < oomScore {
		// Whatever hinders it, InForce shows what there is.
		os.WriteFile(path, strconv.AppendInt(nil, oomScore, 10), 0)
	}
}

func oomScoreOf(path string) int {
	text, _ := os.ReadFile(path)
	score, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return score
}

// Layer is one thing that holds a child back.
type Layer struct {
	Flag uintptr // of clone, for a namespace
	Name string  // for people
	link string  // in /proc/PID/ns
}

// Namespaces are the kinds that can be in force.
var Namespaces = []Layer{
	{unix.CLONE_NEWUSER, "user namespace", "user"},
	{unix.CLONE_NEWNET, "network namespace", "net"},
	{unix.CLONE_NEWIPC, "ipc namespace", "ipc"},
	{unix.CLONE_NEWUTS, "uts namespace", "uts"},
	{unix.CLONE_NEWNS, "mount namespace", "mnt"},
	{unix.CLONE_NEWPID, "pid namespace", "pid"},
}

// Landlock is the name of that layer.
const Landlock = "Landlock"

// InForce is what holds the child back now, read from /proc, in words for people;
// nothing once it has ended. Two things the kernel shows to nobody: Landlock, which
// was tried on the thread that became the child and cannot be lifted since, and the
// signal at the parent's death, which is not among them.
func (c *Child) InForce() []string {
	layers := inForce(c.PID())
	if c.locked {
		layers = append(layers, Landlock)
	}
	select {
	case <-c.done:
		return nil // and the pid may be another's
	default:
		return layers
	}
}

func inForce(pid int) []string {
	var layers []string
	for _, ns := range Namespaces {
		ours, err1 := os.Readlink("/proc/self/ns/" + ns.link)
		its, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns.link))
		if err1 == nil && err2 == nil && ours != its {
			layers = append(layers, ns.Name)
		}
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		switch strings.Join(strings.Fields(line), " ") {
		case "NoNewPrivs: 1":
			layers = append(layers, "no new privileges")
		case "Seccomp: 2":
			layers = append(layers, "seccomp")
		}
	}
	if score := oomScoreOf(fmt.Sprintf("/proc/%d/oom_score_adj", pid)); score > 0 {
		layers = append(layers, fmt.Sprintf("oom_score_adj %d", score))
	}
	return layers
}
