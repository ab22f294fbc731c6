// Command bench is "make bench": Rackseed beside programs that others use for
// the same. docs/benchmarks.md says what the figures mean.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/rackseed/rackseed/build/tools"
	"github.com/rackseed/rackseed/vm-test/bench"
	"github.com/rackseed/rackseed/vm-test/parts"
)

const usage = `usage: go run ./vm-test/cmd/bench [NAME…]

  go             the Go benchmarks beside the code
  image-to-disk  a node image onto a disk, beside curl | dd
  dora-fsync     DHCP exchanges a second, beside Kea and dnsmasq; needs root
  http-blob      a node image to 1 and 16 clients, beside nginx; needs root
  tftp-boot      a boot program to 16 clients, beside tftpd-hpa and atftpd;
                 needs root
  replica-copy   a node image from replica to replica, beside curl | dd
  silence        how long DHCP is silent in a handoff and when the leader is
                 killed, in namespaces; needs root, takes half an hour
  iso-to-ready   power-on to a Ready node, beside bare kubeadm init

Without a name: all but the last two, and with VM=1 in the environment also
those; iso-to-ready takes ten minutes. Results go to the standard output, how
far it is to the standard error.
`

var names = []string{"go", "image-to-disk", "dora-fsync", "http-blob", "tftp-boot", "replica-copy", "silence", "iso-to-ready"}

// long are how many of the names, the last ones, run only if they are asked for.
const long = 2

// chosen are the benches to run: those that the arguments name, else all, but
// those that take long only if vm.
func chosen(args []string, vm bool) ([]string, error) {
	for _, name := range args {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("there is no bench %q", name)
		}
	}
	switch {
	case len(args) > 0:
		return args, nil
	case vm:
		return names, nil
	}
	return names[:len(names)-long], nil
}

func main() {
	wanted, err := chosen(os.Args[1:], os.Getenv("VM") == "1")
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n%s", err, usage)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, wanted, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// stage is what all comparisons need.
type stage struct {
	repository string
	dir        string // a folder of ours on a disk
	rackseed   string // the program
	peers      tools.Root
	out, log   io.Writer
}

func run(ctx context.Context, wanted []string, out, log io.Writer) (err error) {
	s := stage{out: out, log: log}
	if s.repository, err = parts.Repository(); err != nil {
		return err
	}
	s.dir = filepath.Join(s.repository, "out", "bench")
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	fmt.Fprintln(log, "Building (what is cached is taken from there):")
	rackseed, err := parts.Target(ctx, "rackseed", log)
	if err != nil {
		return err
	}
	s.rackseed = filepath.Join(rackseed, "rackseed")
	peers, err := parts.Target(ctx, "peers", log)
	if err != nil {
		return err
	}
	s.peers = tools.Root(peers)
	facts, err := bench.Facts(ctx, s.dir, s.peers)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "# "+strings.Join(facts, "\n# "))
	// One that fails does not keep the others from being measured.
	for _, name := range wanted {
		if one := s.bench(ctx, name); one != nil {
			fmt.Fprintln(log, "bench:", name, "failed")
			err = errors.Join(err, one)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return err
}

const (
	diskRuns = 5
	doraRuns = 3
	httpRuns = 5
	tftpRuns = 5
)

// bench runs one comparison and prints its lines. What it wrote stays in its
// folder if it fails.
func (s stage) bench(ctx context.Context, name string) error {
	fmt.Fprintf(s.log, "%s:\n", name)
	switch name {
	case "go":
		return bench.GoBenchmarks(ctx, s.repository, s.out, s.log)
	case "silence":
		clients, err := parts.Target(ctx, "clients", s.log)
		if err != nil {
			return err
		}
		return bench.Silence(ctx, s.repository, tools.Root(clients), s.out, s.log)
	}
	dir := filepath.Join(s.dir, name)
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return err
	}
	lines, err := s.compare(ctx, name, dir)
	if err != nil {
		return err
	}
	for _, line := range lines {
		if _, err := line.WriteTo(s.out); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

func (s stage) compare(ctx context.Context, name, dir string) ([]bench.Line, error) {
	one := func(line bench.Line, err error) ([]bench.Line, error) { return []bench.Line{line}, err }
	switch name {
	case "image-to-disk":
		return one(bench.ImageToDisk(ctx, dir, s.rackseed, s.peers, diskRuns, s.log))
	case "dora-fsync":
		return bench.DORA(ctx, dir, s.rackseed, s.peers, doraRuns, s.log)
	case "http-blob":
		return bench.HTTPBlob(ctx, dir, s.rackseed, s.peers, httpRuns, s.log)
	case "tftp-boot":
		return bench.TFTPBoot(ctx, dir, s.rackseed, s.peers, tftpRuns, s.log)
	case "replica-copy":
		return one(bench.ReplicaCopy(ctx, dir, s.rackseed, s.peers, diskRuns, s.log))
	case "iso-to-ready":
		return one(bench.ISOToReady(ctx, dir, s.log))
	}
	return nil, fmt.Errorf("there is no bench %q", name)
}
