package containerimages

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"github.com/rackseed/rackseed/build/pins"
	"github.com/rackseed/rackseed/build/step"
	"github.com/rackseed/rackseed/build/tartree"
)

// Programs are what the images hold, and the containerd that imports them.
type Programs struct {
	Kubernetes, Etcd, CoreDNS, Pause step.File
	Containerd, Ctr                  step.File
	Debian                           *step.Step // the set "node", unpacked
}

// StoreFile is what Step makes: containerd's folder, /var/lib/containerd, as a
// tar file with paths relative to it.
const StoreFile = "store.tar"

// Step makes StoreFile.
func Step(p Programs) *step.Step {
	files := []step.File{p.Kubernetes, p.Etcd, p.CoreDNS, p.Pause, p.Containerd, p.Ctr, {Step: p.Debian}}
	deps := step.Deps(files...)
	inputs := []string{"4", strconv.Itoa(pins.SourceDateEpoch), fmt.Sprint(images), config, fmt.Sprint(importArgs)}
	for _, f := range files {
		inputs = append(inputs, f.Path)
	}
	return &step.Step{
		Name:   "node-images",
		Inputs: inputs,
		Deps:   deps,
		Make: func(ctx context.Context, out string, dirs []string, log io.Writer) error {
			where := step.NewResolver(deps, dirs)
			var at []string
			for _, f := range files {
				file, err := where.Path(f)
				if err != nil {
					return err
				}
				at = append(at, file)
			}
			return makeStore(ctx, out, programs{kubernetes: at[0], etcd: at[1], coredns: at[2], pause: at[3], debian: at[6]}, at[4], at[5], log)
		},
	}
}

func makeStore(ctx context.Context, out string, p programs, containerd, ctr string, log io.Writer) (err error) {
	layers, err := p.layers()
	if err != nil {
		return err
	}
	work := filepath.Join(out, "work")
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	root, archive := filepath.Join(work, "root"), filepath.Join(work, "images.tar")
	if err := os.MkdirAll(root, 0o711); err != nil {
		return err
	}
	if err := writeArchive(ctx, archive, images, layers); err != nil {
		return fmt.Errorf("container images: %w", err)
	}
	if err := importArchive(ctx, containerd, ctr, root, archive, log); err != nil {
		return fmt.Errorf("importing the container images: %w", err)
	}
	t, err := store(root, work)
	if err != nil {
		return fmt.Errorf("containerd's folder: %w", err)
	}
	return t.Write(ctx, filepath.Join(out, StoreFile), pins.Epoch())
}

// Folders and files of containerd's root that a node starts with. Everything
// else there belongs to the daemon that ran, as its UUID does.
const (
	contentDir  = "io.containerd.content.v1.content"
	metadataDB  = "io.containerd.metadata.v1.bolt/meta.db"
	overlayDir  = "io.containerd.snapshotter.v1.overlayfs"
	snapshotsDB = overlayDir + "/metadata.db"
)

// store is what of containerd's root goes into the node image.
func store(root, work string) (tartree.Tree, error) {
	t := tartree.Tree{}
	for p, mode := range map[string]int64{
		contentDir: 0o755, contentDir + "/blobs/sha256": 0o755, contentDir + "/ingest": 0o755,
		path.Dir(metadataDB): 0o711, overlayDir: 0o700, overlayDir + "/snapshots": 0o700,
	} {
		if err := t.Dir(p, mode); err != nil {
			return nil, err
		}
	}
	if err := t.Folder(contentDir+"/blobs", filepath.Join(root, contentDir, "blobs")); err != nil {
		return nil, err
	}
	for p := range t {
		if e := t[p]; e.Size > 0 {
			e.Mode = 0o444 // as containerd commits blobs
			t[p] = e
		}
	}
	if err := addSnapshots(t, overlayDir+"/snapshots", filepath.Join(root, overlayDir, "snapshots")); err != nil {
		return nil, err
	}
	for db, change := range map[string]rewrite{
		metadataDB:  fixedTimes,
		snapshotsDB: fixedUsage(filepath.Join(root, overlayDir, "snapshots")),
	} {
		canonical := filepath.Join(work, path.Base(db))
		if err := canonicalise(canonical, filepath.Join(root, db), change); err != nil {
			return nil, fmt.Errorf("%s: %w", db, err)
		}
		if err := t.File(db, 0o644, canonical); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// addSnapshots adds each snapshot's files, and its empty work folder: what the
// kernel left in that is for nobody, and differs.
func addSnapshots(t tartree.Tree, at, dir string) error {
	numbers, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		p := path.Join(at, n.Name())
		if err := errors.Join(t.Dir(p, 0o700), t.Dir(p+"/work", 0o711), addTree(t, p+"/fs", filepath.Join(dir, n.Name(), "fs"))); err != nil {
			return err
		}
	}
	return nil
}

// addTree adds a folder with its exact modes, all owned by root.
func addTree(t tartree.Tree, at, dir string) error {
	return filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		p := path.Join(at, filepath.ToSlash(rel))
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := int64(info.Mode().Perm())
		for bit, value := range map[fs.FileMode]int64{fs.ModeSticky: 0o1000, fs.ModeSetgid: 0o2000, fs.ModeSetuid: 0o4000} {
			if info.Mode()&bit != 0 {
				mode |= value
			}
		}
		switch {
		case d.IsDir():
			return t.Dir(p, mode)
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(file)
			if err != nil {
				return err
			}
			return t.Symlink(p, target)
		case d.Type().IsRegular():
			return t.File(p, mode, file)
		}
		return fmt.Errorf("/%s: %s is of a kind that no layer of ours has", p, d.Type())
	})
}
