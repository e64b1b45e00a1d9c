package doctor

import (
	"banger/internal/artifact"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/template"
)

// leftovers judges what lies around of images, kernels and templates, and the
// daemon's socket.
func (s sight) leftovers() (all []finding) {
	dirs := s.exam.dirs
	images := image.Builder{Dir: dirs.Images()}
	for _, unfinished := range []func() ([]string, error){
		images.Unfinished,
		kernel.NewStore(dirs.Kernels(), dirs.Downloads()).Unfinished,
		template.Cache{Dir: dirs.Templates()}.Unfinished,
		func() ([]string, error) { return trashOf(dirs.ImageTrash()) },
		func() ([]string, error) { return artifact.Stale(dirs.Cache), nil },
	} {
		paths, err := unfinished()
		for _, path := range paths {
			all = append(all, orphan("%s, which was not finished", s.short(path)))
		}
		if err != nil {
			all = append(all, finding{Row: Row{Verdict: Warn, Detail: err.Error()}})
		}
	}
	if s.daemon == nil && exists(dirs.Socket()) {
		all = append(all, orphan("%s, the socket of a daemon that does not run", dirs.Socket()))
	}
	return append(all, s.lostImages(images)...)
}

func trashOf(dir string) ([]string, error) {
	if names, err := namesIn(dir); err != nil || len(names) == 0 {
		return nil, err
	}
	return []string{dir}, nil
}

// lostImages are images without a row, or with one that does not say yet that they
// were promoted. The daemon puts both right when it starts.
func (s sight) lostImages(images image.Builder) (all []finding) {
	if !s.readable {
		return nil
	}
	known := map[string]bool{}
	for id, row := range s.images {
		known[id] = true
		if _, r, err := image.Load(s.exam.dirs.Image(id)); err == nil && !row.Managed && r.Registered == nil {
			all = append(all, orphan("the promotion of the image %s was not finished", row.Name))
		}
	}
	lost, err := images.Lost(known)
	if err != nil {
		return all // the check of directories says so
	}
	for _, r := range lost {
		all = append(all, orphan("the image %s in %s has no row", r.Name, s.short(s.exam.dirs.Image(r.ID))))
	}
	return all
}
