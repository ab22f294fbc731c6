// Command build makes Rackseed from its sources: go run ./build TARGET…
//
// Outputs are kept in ${XDG_CACHE_HOME:-~/.cache}/rackseed under the hash of
// what they were made from, for as long as they are used (step.Cache.Clean); what
// is asked for appears in out/.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/rackseed/rackseed/build/debian"
	"github.com/rackseed/rackseed/build/step"
)

const usage = `usage: go run ./build TARGET…

  iso         out/rackseed.iso; with SITE=site.yaml it carries that site file,
              with EMULATED=1 it boots with arguments for emulated machines
  node        the node image: root, kernel, initrd, boot loader
  installer   the installer's kernel and initrd
  rackseed    the program rackseed
  console     the web console's files
  tools       Debian 13's programs for the build and the tests, unpacked
  clients     a folder bin with others' clients and servers, for the tests
  nodejs      a folder bin with node and npm, for the console
  verify      assemble the ISO anew and compare it with what is in the cache
  path TARGET print the folder of a target, made if need be
  lock        take the newest Debian packages into build/locks/debian.lock
  doctor      say what this machine lacks for building
  ready       the same in short, before others: nothing, if nothing is missing

Variables:
  SITE, EMULATED         see iso
  UNLOCKED=1             go on with a mirror's newer packages
  RACKSEED_DEBIAN_MIRROR a Debian mirror, as http://HOST/debian; without it the
                         one of this machine's own apt configuration
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		fmt.Print(usage)
		return nil
	}
	b, err := newBuilder(ctx)
	if err != nil {
		return err
	}
	if args[0] == "path" {
		if len(args) != 2 {
			return errors.New("path: one target is expected")
		}
		err = b.path(args[1])
	} else {
		for _, name := range args {
			if err = b.target(name); err != nil {
				break
			}
		}
	}
	if err != nil {
		return err
	}
	b.cache.Clean(time.Now(), b.graph.archive.Locked)
	return nil
}

// builder makes targets.
type builder struct {
	ctx   context.Context
	repo  string
	cache *step.Cache
	graph *graph
}

func newBuilder(ctx context.Context) (*builder, error) {
	repo, err := findRepository()
	if err != nil {
		return nil, err
	}
	dir, err := step.DefaultDir()
	if err != nil {
		return nil, err
	}
	b := &builder{ctx: ctx, repo: repo, cache: &step.Cache{Dir: dir, Progress: os.Stderr}}
	b.graph = &graph{
		ctx: ctx, repo: repo, made: map[string]*step.Step{},
		archive: &debian.Archive{Repository: repo, Cache: dir, Unlocked: os.Getenv("UNLOCKED") == "1", Log: os.Stderr},
	}
	return b, nil
}

// findRepository is the folder, at or above the current one, with our go.mod.
func findRepository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		if b, err := os.ReadFile(filepath.Join(d, "go.mod")); err == nil && strings.HasPrefix(string(b), "module github.com/rackseed/rackseed\n") {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("%s is not in the Rackseed repository", dir)
		}
	}
}

// target makes one target and puts it into out/.
func (b *builder) target(name string) error {
	switch name {
	case "iso":
		return b.iso()
	case "verify":
		return b.verify()
	case "lock":
		return b.lock()
	case "doctor":
		return doctor(b.ctx, b.repo, b.cache.Dir, os.Stdout)
	case "ready":
		return ready(b.ctx, b.repo, b.cache.Dir, os.Stderr)
	case "node":
		return b.show("node", "oci", "node-root", "node-initrd", "kernel")
	case "installer":
		return b.show("installer", "installer-initrd", "kernel")
	}
	return b.show(name, name)
}

// show makes targets and links their folders into out/NAME.
func (b *builder) show(name string, targets ...string) error {
	steps, err := b.graph.targets(targets...)
	if err != nil {
		return err
	}
	dirs, err := b.cache.Build(b.ctx, steps...)
	if err != nil {
		return err
	}
	out := filepath.Join(b.repo, "out", name)
	if len(targets) == 1 {
		return replaceLink(dirs[0], out)
	}
	for i, t := range targets {
		if err := replaceLink(dirs[i], filepath.Join(out, t)); err != nil {
			return err
		}
	}
	return nil
}

// replaceLink makes link point to target, whatever it was.
func replaceLink(target, link string) error {
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(link); err != nil {
		return err
	}
	if err := os.Symlink(target, link); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "  out     %s\n", link)
	return nil
}

// path prints where a target's files are.
func (b *builder) path(name string) error {
	s, err := b.graph.target(name)
	if err != nil {
		return err
	}
	dir, err := b.cache.Get(b.ctx, s)
	if err != nil {
		return err
	}
	fmt.Println(dir)
	return nil
}

// lock refreshes the lock of Debian packages.
func (b *builder) lock() error {
	changes, err := b.graph.archive.Refresh(b.ctx)
	if err != nil {
		return err
	}
	if len(changes) == 0 {
		fmt.Println("build/locks/debian.lock: nothing changed")
		return nil
	}
	sort.Strings(changes)
	fmt.Printf("build/locks/debian.lock:\n  %s\n", strings.Join(changes, "\n  "))
	return nil
}
