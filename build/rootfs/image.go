package rootfs

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/rackseed/rackseed/build/pins"
	"github.com/rackseed/rackseed/build/step"
	"github.com/rackseed/rackseed/build/tartree"
	"github.com/rackseed/rackseed/build/tools"
)

// Spec is what goes into the node's root file system.
type Spec struct {
	Base   *step.Step // of Base
	Kernel *step.Step // of Kernel
	Tools  *step.Step // the set "tools", unpacked
	// Store is store.tar of containerimages.Step: containerd's folder.
	Store step.File
	// Programs are Go programs by their paths: "/usr/local/bin/rackseed".
	Programs map[string]step.File
	// Files is the folder of our own files, a tree rooted at /, in Git's modes.
	Files string
}

// links are what the image has beside its files.
var links = map[string]string{
	"/usr/local/bin/kubeadm": "kubernetes",
	"/usr/local/bin/kubelet": "kubernetes",
	"/usr/local/bin/kubectl": "kubernetes",
	"/root":                  "var/roothome",
}

// folders are made empty. The first is where the data partition is mounted.
var folders = map[string]int64{
	"/data": 0o755, "/boot": 0o755, "/var/roothome": 0o700, "/var/log": 0o755, "/var/cache": 0o755, "/var/log/journal": 0o755,
	"/etc/cni/net.d": 0o755, "/etc/kubernetes/manifests": 0o755, "/var/lib/kubelet": 0o700, "/opt/cni/bin": 0o755,
	"/usr/libexec/kubernetes": 0o755,
}

// uuid of the file system. The same for all: slots are found by PARTUUID.
const uuid = "7261636b-7365-4564-8e6f-64655f726f6f"

// Image is a step that makes root.erofs (and root.tar, which it came from).
func Image(s Spec) (*step.Step, error) {
	files, err := filesInput(s.Files)
	if err != nil {
		return nil, fmt.Errorf("the node's files: %w", err)
	}
	inputs := []string{"2", strconv.Itoa(pins.SourceDateEpoch), uuid, fmt.Sprint(dropped), fmt.Sprint(links), fmt.Sprint(folders), fmt.Sprint(erofsFlags), files}
	all := []step.File{s.Store}
	paths := make([]string, 0, len(s.Programs))
	for p := range s.Programs {
		paths = append(paths, p)
	}
	sort.Strings(paths)
	for _, p := range paths {
		inputs = append(inputs, p+" "+s.Programs[p].Path)
		all = append(all, s.Programs[p])
	}
	deps := append([]*step.Step{s.Base, s.Kernel, s.Tools}, step.Deps(all...)...)
	return &step.Step{
		Name:   "node-root",
		Inputs: inputs,
		Deps:   deps,
		Make: func(ctx context.Context, out string, dirs []string, log io.Writer) error {
			where := step.NewResolver(deps, dirs)
			t, err := assemble(s, dirs[0], dirs[1], where)
			if err != nil {
				return err
			}
			saved, err := t.Share(64 << 10)
			if err != nil {
				return err
			}
			fmt.Fprintf(log, "%d files, %d MB shared by hard links\n", len(t), saved>>20)
			file := filepath.Join(out, "root.tar")
			if err := t.Write(ctx, file, pins.Epoch()); err != nil {
				return err
			}
			if err := makeErofs(ctx, tools.Root(dirs[2]), filepath.Join(out, "root.erofs"), file, log); err != nil {
				return err
			}
			return os.Remove(file)
		},
	}, nil
}

// filesInput is the hash of a tree of files, with its links.
func filesInput(dir string) (string, error) {
	sum, err := step.Files(dir, ".")
	if err != nil {
		return "", err
	}
	t := tartree.Tree{}
	if err := t.Folder("/", dir); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(sum)
	for _, p := range t.Paths() {
		if t[p].Type == tar.TypeSymlink {
			fmt.Fprintf(&b, " %s->%s", p, t[p].Link)
		}
	}
	return b.String(), nil
}

func assemble(s Spec, base, kernel string, where step.Resolver) (tartree.Tree, error) {
	t := tartree.Tree{}
	home := tartree.Tree{}
	if err := t.Tar("/", filepath.Join(base, "base.tar"), func(p string, e tartree.Entry) bool {
		// What Debian puts into root's home moves with it.
		if rest, ok := strings.CutPrefix(p, "root/"); ok {
			home[rest] = e
		}
		return p == "root" || strings.HasPrefix(p, "root/") || drop(p, e)
	}); err != nil {
		return nil, err
	}
	for p, mode := range folders {
		if err := t.Dir(p, mode); err != nil {
			return nil, err
		}
	}
	for _, p := range home.Paths() {
		if err := t.Put("/var/roothome/"+p, home[p]); err != nil {
			return nil, err
		}
	}
	// A file that is there and empty is no first boot: systemd fills it and
	// asks nobody (machine-id(5)).
	if err := t.Bytes("/etc/machine-id", 0o444, nil); err != nil {
		return nil, err
	}
	if err := t.Folder("/usr/lib/modules", filepath.Join(kernel, "lib/modules")); err != nil {
		return nil, err
	}
	store, err := where.Path(s.Store)
	if err != nil {
		return nil, err
	}
	if err := t.Tar(pins.ContainerdStore, store, nil); err != nil {
		return nil, err
	}
	for p, f := range s.Programs {
		file, err := where.Path(f)
		if err != nil {
			return nil, fmt.Errorf("program %s: %w", p, err)
		}
		if err := t.File(p, 0o755, file); err != nil {
			return nil, fmt.Errorf("program %s: %w", p, err)
		}
	}
	for p, target := range links {
		if err := t.Symlink(p, target); err != nil {
			return nil, err
		}
	}
	if err := t.Folder("/", s.Files); err != nil {
		return nil, err
	}
	return t, applyPresets(t)
}

// erofsFlags: big clusters compress well and read fast; lz4hc unpacks fastest,
// which counts where the disk is emulated.
var erofsFlags = []string{"-zlz4hc,level=9", "-C65536", "-Efragments", "-T", strconv.Itoa(pins.SourceDateEpoch), "--all-time", "-U", uuid, "-L", "rackseed-node", "--quiet", "--tar=f"}

func makeErofs(ctx context.Context, root tools.Root, out, tarFile string, log io.Writer) error {
	cmd, err := root.Command(ctx, "mkfs.erofs", append(append([]string{}, erofsFlags...), out, tarFile)...)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("mkfs.erofs: %w", err)
	}
	return nil
}
