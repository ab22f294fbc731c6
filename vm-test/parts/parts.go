// Package parts has everything built that a virtual rack is made of.
package parts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/rackseed/rackseed/build/iso"
	"github.com/rackseed/rackseed/build/pins"
	"github.com/rackseed/rackseed/build/step"
	"github.com/rackseed/rackseed/build/tools"
	"github.com/rackseed/rackseed/vm-test/child"
)

// Parts are the folders that the build made.
type Parts struct {
	Repository string
	Tools      tools.Root // QEMU, firmware, mtools
	Kernel     string     // the Linux kernel's file
	Kubectl    string     // kubectl
	isoBase    string
}

// Build builds what is not in the cache, from which nothing of it is removed while
// this process lives. Progress goes to out.
func Build(ctx context.Context, out io.Writer) (Parts, error) {
	root, err := Repository()
	if err != nil {
		return Parts{}, err
	}
	dirs := map[string]string{}
	for _, target := range []string{"tools", "kernel", "kubernetes", "rackseed", "iso-base"} {
		if dirs[target], err = build(ctx, root, target, out); err != nil {
			return Parts{}, err
		}
	}
	p := Parts{Repository: root, Tools: tools.Root(dirs["tools"]), isoBase: dirs["iso-base"], Kernel: filepath.Join(dirs["kernel"], "vmlinuz")}
	// For people: kubectl, one of the names of the multi-call binary, and our
	// own command line.
	bin := filepath.Join(root, "out", "bin")
	p.Kubectl = filepath.Join(bin, "kubectl")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return Parts{}, err
	}
	for link, to := range map[string]string{
		p.Kubectl:                      filepath.Join(dirs["kubernetes"], "kubernetes"),
		filepath.Join(bin, "rackseed"): filepath.Join(dirs["rackseed"], "rackseed"),
	} {
		if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
			return Parts{}, err
		}
		if err := os.Symlink(to, link); err != nil {
			return Parts{}, err
		}
	}
	return p, nil
}

// Target builds one target, as Build does, and returns its folder.
func Target(ctx context.Context, target string, out io.Writer) (string, error) {
	root, err := Repository()
	if err != nil {
		return "", err
	}
	return build(ctx, root, target, out)
}

func build(ctx context.Context, root, target string, out io.Writer) (string, error) {
	runtime.LockOSThread() // see child.Command
	defer runtime.UnlockOSThread()
	cmd := child.Command(ctx, "go", "run", "./build", "path", target)
	cmd.Dir, cmd.Stderr = root, out
	path, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("building %s: %w; what is wrong is said above", target, err)
	}
	dir := strings.TrimSpace(string(path))
	return dir, step.Hold(dir)
}

// WriteISO writes the image with a site file to path.
func (p Parts) WriteISO(ctx context.Context, path string, site []byte, emulated bool) error {
	var log bytes.Buffer
	err := iso.Personalise(ctx, p.isoBase, path, iso.Personal{
		Site: site, Readme: []byte("A stick of the virtual rack.\r\n"), Emulated: emulated, Epoch: pins.SourceDateEpoch,
		Run: p.Tools.Command, Log: &log,
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, log.String())
	}
	return nil
}

// Repository is the folder, at or above the current one, with our go.mod.
func Repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; d != filepath.Dir(d); d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		}
	}
	return "", fmt.Errorf("%s is not in the Rackseed repository", dir)
}
