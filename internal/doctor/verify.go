package doctor

import (
	"context"
	"fmt"
	"strings"

	"banger"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/shim"
	"banger/internal/store"
	"banger/internal/template"
	"banger/internal/vm"
)

// verify reads all that has a digest and compares. Of what it was interrupted amid it
// says nothing.
func (e *exam) verify(ctx context.Context) {
	if !e.Verify {
		return
	}
	whole, before := map[string]int{}, len(e.rows)
	i, err := store.Inspect(ctx, e.dirs.Database())
	if err != nil && ctx.Err() == nil {
		e.add("verify", Warn, "images and VMs are not known: "+err.Error())
	}
	e.verifyImages(ctx, i, whole)
	e.verifyKernels(ctx, i, whole)
	e.verifyTemplates(ctx, whole)
	e.verifySaved(ctx, i.VMs, whole)
	if len(e.rows) == before && ctx.Err() == nil {
		e.pass("verify", "%d images, %d kernels, %d templates and %d saved machines are what they were",
			whole["image"], whole["kernel"], whole["template"], whole["saved"])
	}
}

func (e *exam) verifyImages(ctx context.Context, i store.Inspection, whole map[string]int) {
	for _, img := range i.Images {
		dir := img.ArtifactDir
		if !img.Managed { // a person's own file, whose record is ours
			dir = e.dirs.Image(img.ID)
		}
		e.stage("verify image %s", img.Name)
		err := image.Verify(ctx, dir)
		if ctx.Err() != nil {
			return
		}
		if !img.Managed && banger.CodeOf(err) == banger.NotFound {
			continue // of another tool, which kept no digest
		}
		if err != nil {
			e.badImage(img, i.VMs, err)
			continue
		}
		whole["image"]++
	}
}

// badImage says what can be done about an image: one that VMs use cannot be had
// again, since another build is another image.
func (e *exam) badImage(img banger.Image, vms []banger.VM, err error) {
	var users []string
	for _, v := range vms {
		if v.ImageID == img.ID {
			users = append(users, v.Name)
		}
	}
	_, record, _ := image.Load(img.ArtifactDir)
	damaged := img.RootfsPath
	if seed := img.WorkSeedPath; seed != "" && strings.Contains(err.Error(), seed) {
		damaged = seed
	}
	switch {
	case !record.Again():
		e.add("image", Fail, err.Error(), "put a good copy in the place of "+damaged,
			"or give it up with its VMs: "+strings.Join(append(commandsOf(users), "banger image delete "+img.Name), " && "))
		return
	case len(users) == 0:
		e.repair("image", Fail, err.Error(), &Fix{Action: RebuildImage, Subject: img.Name, Does: "build the image " + img.Name + " again"}, "banger image pull --force "+img.Name)
		return
	}
	e.add("image", Fail, err.Error(),
		"put a good copy in the place of "+damaged,
		fmt.Sprintf("or give up the VMs that are made from it: banger rm -f %s && banger image pull --force %s", strings.Join(users, " "), img.Name))
}

// commandsOf removes VMs.
func commandsOf(vms []string) []string {
	if len(vms) == 0 {
		return nil
	}
	return []string{"banger rm -f " + strings.Join(vms, " ")}
}

func (e *exam) verifyKernels(ctx context.Context, i store.Inspection, whole map[string]int) {
	all, err := kernel.NewStore(e.dirs.Kernels(), e.dirs.Downloads()).List()
	if err != nil {
		e.add("kernel", Fail, err.Error())
	}
	for _, k := range all {
		e.stage("verify kernel %s", k.Name)
		err := kernel.Verify(ctx, k)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err == nil:
			whole["kernel"]++
		case k.Name == "" && e.unbooted(k, i):
			e.repair("kernel", Fail, err.Error(), deleteKernel(k), "banger kernel delete "+k.Digest)
		default:
			e.badKernel(k, err)
		}
	}
}

// unbooted says whether no VM and no image needs a kernel.
func (e *exam) unbooted(k banger.Kernel, i store.Inspection) bool {
	for _, v := range i.VMs {
		if v.Spec.Kernel == k.Digest {
			return false
		}
	}
	for _, img := range i.Images {
		_, r, err := image.Load(e.dirs.Image(img.ID))
		if err != nil && banger.CodeOf(err) != banger.NotFound || r.Kernel == k.Digest {
			return false
		}
	}
	return i.Status == store.StatusCurrent
}

func deleteKernel(k banger.Kernel) *Fix {
	return &Fix{Action: DeleteKernel, Subject: k.Digest, Does: "delete the kernel " + banger.ShortID(k.Digest) + ", which has no name and which nothing boots"}
}

func (e *exam) badKernel(k banger.Kernel, err error) {
	again := &Fix{Action: PullKernel, Subject: k.Name, Does: "get the kernel " + k.Name + " again"}
	for _, available := range kernel.NewStore(e.dirs.Kernels(), e.dirs.Downloads()).Available() {
		if k.Name == available.Name {
			e.repair("kernel", Fail, err.Error(), again, "banger kernel pull --force "+k.Name)
			return
		}
	}
	// With its digest it is the same one, which VMs boot.
	if ref, _, ok := strings.Cut(k.Source, "@sha256:"); ok && k.Distro == "oci" && k.Name != "" {
		again.Subject, again.As, again.Does = k.Source, k.Name, again.Does+" from "+ref
		e.repair("kernel", Fail, err.Error(), again, fmt.Sprintf("banger kernel pull --force %s --name %s", k.Source, k.Name))
		return
	}
	e.add("kernel", Fail, err.Error(), "import it again: banger kernel import --help")
}

func (e *exam) verifyTemplates(ctx context.Context, whole map[string]int) {
	all, err := template.Cache{Dir: e.dirs.Templates()}.List()
	if err != nil {
		e.add("template", Warn, err.Error())
	}
	for _, t := range all {
		e.stage("verify template %s", banger.ShortID(t.ID))
		err := template.Verify(ctx, t)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			e.repair("template", Warn, fmt.Sprintf("the template %s is damaged, and will be made again: %v", banger.ShortID(t.ID), err),
				&Fix{Action: PruneTemplates, Does: "remove the templates that no running VM is a fork of; they are made again when they are needed"},
				"banger image cache prune")
			continue
		}
		whole["template"]++
	}
}

// verifySaved looks at snapshots and suspended VMs. One that runs may be about to
// change what is saved.
func (e *exam) verifySaved(ctx context.Context, vms []banger.VM, whole map[string]int) {
	for _, row := range vms {
		dir := e.dirs.VM(row.ID)
		saved, err := vm.SavedMachines(dir)
		if err != nil {
			e.add("snapshot", Warn, fmt.Sprintf("the snapshots of %s cannot be read: %v", row.Name, err))
		}
		for _, s := range saved {
			e.stage("verify what is saved of %s", row.Name)
			err := s.Verify(ctx)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				e.badSaved(row, s, err)
				continue
			}
			whole["saved"]++
		}
	}
}

func (e *exam) badSaved(row banger.VM, s vm.Saved, err error) {
	dir := e.dirs.VM(row.ID)
	if s.Snapshot.ID != "" && exists(dir.Snapshot(s.Snapshot.ID)) {
		e.add("snapshot", Fail, fmt.Sprintf("%s of %s cannot be restored: %v", s.Snapshot.Name, row.Name, err),
			fmt.Sprintf("banger vm snapshot delete %s %s", row.Name, s.Snapshot.Name))
	}
	if _, alive, _ := shim.Alive(dir); s.Snapshot.ID == "" && !alive && exists(dir.Suspended()) {
		e.add("suspended", Fail, fmt.Sprintf("%s cannot be resumed and will boot from its disk: %v", row.Name, err),
			"banger vm start "+row.Name)
	}
}
