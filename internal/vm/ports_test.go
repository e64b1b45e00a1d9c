package vm

import (
	"errors"
	"net"
	"testing"

	"banger"
)

func TestShimIsToldTheVMsPlaceOnTheHost(t *testing.T) {
	w := newWorld(t)
	v := w.create(Create{Name: "devbox", Start: true, Wait: true, Publish: []string{"127.0.0.56:28080:80"}})
	p := w.shims.vms[v.ID].launch.Ports
	if p == nil || p.Address.String() != "127.77.0.2" || p.Prefix != "127.77" || p.Owner != "test" || len(p.Publish) != 1 {
		t.Fatalf("the shim got %+v", p)
	}
	if list, err := w.Ports(t.Context(), v.ID); err != nil || len(list) != 1 {
		t.Errorf("its ports are %v, %v", list, err)
	}
	children, err := w.Fork(t.Context(), v.ID, Fork{}, silent{})
	if err != nil {
		t.Fatal(err)
	}
	if p := w.shims.vms[children.VMs[0].ID].launch.Ports; p == nil || p.Address.String() != "127.77.0.3" || len(p.Publish) != 0 {
		t.Errorf("its fork got %+v", p)
	}
	w.prefixErr = errors.New("all are taken")
	other := w.create(Create{Name: "other", Start: true, Wait: true})
	if p := w.shims.vms[other.ID].launch.Ports; p == nil || p.Address.IsValid() || p.Prefix != "" {
		t.Errorf("without a prefix it got %+v", p)
	}
}

func TestTakenPortMakesNoVM(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	w := newWorld(t)
	_, err = w.Create(t.Context(), Create{Name: "devbox", Start: true, Publish: []string{port + ":80"}}, silent{})
	if banger.CodeOf(err) != banger.Conflict || len(banger.HintsOf(err)) == 0 {
		t.Errorf("got %v", err)
	}
	if _, err = w.Create(t.Context(), Create{Name: "devbox", Publish: []string{"80"}}, silent{}); banger.CodeOf(err) != banger.BadRequest {
		t.Errorf("got %v", err)
	}
	if all, err := w.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("there is %v, %v", all, err)
	}
	w.create(Create{Name: "later", Publish: []string{port + ":80"}}) // it may be free when that is started
}
