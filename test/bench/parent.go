package main

import (
	_ "embed"
	"fmt"
	"strings"

	"banger/test/world"
)

//go:embed server.py
var server string

// parent is a VM at work that is forked.
type parent struct {
	*benchmark
	name   string
	answer string // of its server
}

// work makes a VM whose server has touched so much memory and written so much to
// the disk.
func (b *benchmark) work(name string, memoryMiB, heapMiB, filesMiB int) (*parent, error) {
	if err := b.command("vm", "create", "--name", name, "--memory", fmt.Sprint(memoryMiB))(); err != nil {
		return nil, err
	}
	cmd := b.w.Command("exec", "-i", name, "--", "sh", "-c", "cat > /root/server.py")
	cmd.Stdin = strings.NewReader(server)
	if r := world.Finish(cmd); r.Status != 0 {
		return nil, fmt.Errorf("cannot bring the server: %s", r.Stderr)
	}
	if err := b.command("exec", "-d", name, "--", "python3", "/root/server.py", fmt.Sprint(heapMiB), fmt.Sprint(filesMiB))(); err != nil {
		return nil, err
	}
	p := &parent{benchmark: b, name: name}
	var err error
	p.answer, err = p.ask(name)
	return p, err
}

// ask asks the server in a VM, over the connection that it has had since before
// any fork. The first answer comes when the server is ready.
func (p *parent) ask(vm string) (string, error) {
	return p.output("exec", vm, "--", "sh", "-c",
		"until [ -p /run/answer ]; do sleep 0.1; done; echo same > /run/ask; cat /run/answer")
}

// check sees that the server lives in a copy, with what the parent had in its memory.
func (p *parent) check(vm string) error {
	got, err := p.ask(vm)
	if err == nil && got != p.answer {
		err = fmt.Errorf("the server in %s answers %q, not %q", vm, got, p.answer)
	}
	return err
}

// forks is what `vm fork --json` prints.
type forks struct {
	VMs     []running `json:"vms"`
	Pause   float64   `json:"pause_ms"`
	Results []struct {
		Status *int `json:"status"`
	} `json:"results"`
}

// fork makes copies and runs a command in all of them.
func (p *parent) fork(n int) (f forks, err error) {
	if err := p.benchmark.answer(&f, "vm", "fork", "-n", fmt.Sprint(n), "--json", p.name, "--", "true"); err != nil {
		return f, err
	}
	if len(f.VMs) != n || len(f.Results) != n {
		return f, fmt.Errorf("%d forks gave %+v", n, f)
	}
	return f, nil
}

func (p *parent) remove(f forks) error {
	args := []string{"rm", "-f"}
	for _, vm := range f.VMs {
		args = append(args, vm.Name)
	}
	return p.command(args...)()
}

func (p *parent) end() error { return p.command("rm", "-f", p.name)() }
