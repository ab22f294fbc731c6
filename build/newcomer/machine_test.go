//go:build slow

package newcomer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rackseed/rackseed/build/debian"
	"github.com/rackseed/rackseed/build/step"
	"github.com/rackseed/rackseed/build/tools"
)

// user is the machine's only person: no root, no sudo, no group but their own.
const user = "ann"

// machine is a Debian with nothing but what the README names, and a clone of
// the repository in a person's home. What runs there has mounts and processes
// of its own, which end with it.
type machine struct {
	root string
	// environ is what a machine's own configuration sets: where Go modules come
	// from, and proxies.
	environ map[string]string
	caches  map[string]string // Go's, which it shares; none if it shall be cold
}

// newMachine installs the suite into dir, or takes the one that is there.
func newMachine(t *testing.T, suite, dir string) machine {
	t.Helper()
	m := machine{root: filepath.Join(dir, suite), environ: goSettings(t, "GOPROXY", "GONOPROXY", "GOPRIVATE", "GOSUMDB", "GONOSUMDB", "GOINSECURE")}
	for _, kv := range os.Environ() {
		if name, value, _ := strings.Cut(kv, "="); strings.HasSuffix(strings.ToLower(name), "_proxy") {
			m.environ[name] = value
		}
	}
	if os.Getenv(coldVariable) == "" {
		m.caches = goSettings(t, "GOCACHE", "GOMODCACHE")
		maps.Copy(m.environ, m.caches)
	}
	if done := m.root + ".installed"; !exists(done) {
		if err := os.RemoveAll(m.root); err != nil {
			t.Fatal(err)
		}
		m.install(t, suite)
		if err := os.WriteFile(done, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m.takeCaches(t)
	if done := m.root + ".configured"; !exists(done) {
		m.configure(t)
		if err := os.WriteFile(done, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m.clone(t)
	return m
}

func (m machine) install(t *testing.T, suite string) {
	t.Helper()
	mirror, err := debian.Mirror()
	if err != nil {
		t.Fatal(err)
	}
	cmd, err := toolsRoot(t).Command(t.Context(), "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory",
		"--include=git,make,gcc", `--aptopt=APT::Install-Recommends "true"`, "--dpkgopt=force-unsafe-io",
		// As a person has them, and not as this run wants them.
		`--customize-hook=rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap`,
		suite, m.root, mirror)
	if err != nil {
		t.Fatal(err)
	}
	output(t, cmd)
}

// own are files of a machine's own configuration: how it reaches mirrors and
// registries, and whose certificates it trusts. A newcomer's has them too.
var own = []string{
	"/etc/resolv.conf", "/etc/hosts", "/etc/apt/apt.conf", "/etc/apt/apt.conf.d", "/etc/apt/auth.conf", "/etc/apt/auth.conf.d", "/etc/apt/mirrors",
	"/usr/local/share/ca-certificates", "/etc/npmrc", "/usr/etc/npmrc",
}

func (m machine) configure(t *testing.T) {
	t.Helper()
	for _, path := range own {
		if _, err := os.Stat(path); err != nil {
			continue // this machine has none
		}
		to := filepath.Join(m.root, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		output(t, exec.CommandContext(t.Context(), "cp", "-LrT", "--remove-destination", path, to))
	}
	home := filepath.Join(m.root, "home", user)
	output(t, m.command(t.Context(), "root", "update-ca-certificates && useradd --create-home --shell /bin/bash "+user))
	if npmrc := filepath.Join(os.Getenv("HOME"), ".npmrc"); exists(npmrc) {
		output(t, exec.CommandContext(t.Context(), "cp", "-L", npmrc, home))
	}
}

// clone gives the person what is committed here.
func (m machine) clone(t *testing.T) {
	t.Helper()
	to := filepath.Join(m.root, "home", user, "rackseed")
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	output(t, exec.CommandContext(t.Context(), "git", "clone", "--quiet", "--no-hardlinks", repository(t), to))
	if m.caches != nil {
		m.share(t)
	}
	output(t, m.command(t.Context(), "root", fmt.Sprintf("chown -R %[1]s: /home/%[1]s", user)))
}

// shared are targets that are nothing but "go build" without C: they take most
// of a first build's time, and are taken from this machine's build cache. Every
// other kind of step is made in the newcomer's, and so is one of theirs ("pause").
var shared = []string{"kubernetes", "etcd", "coredns", "containerd", "cni", "ignition", "rackseed", "installer", "nodeinit"}

func (m machine) share(t *testing.T) {
	t.Helper()
	out := filepath.Join(m.root, "home", user, ".cache/rackseed/out")
	if err := os.MkdirAll(out, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, target := range shared {
		build := exec.CommandContext(t.Context(), "go", "run", "./build", "path", target)
		build.Dir = filepath.Join(m.root, "home", user, "rackseed")
		build.Stderr = t.Output()
		dir, err := build.Output()
		if err != nil {
			t.Fatalf("%s: %v", target, err)
		}
		output(t, exec.CommandContext(t.Context(), "cp", "-r", "--no-clobber", strings.TrimSpace(string(dir)), out))
	}
}

// enter makes $1 the root of what runs, in a mount and a process namespace of
// its own: not by chroot, in which the kernel refuses user namespaces. The first
// process there stays root's: what changes its user no longer dies with its parent.
const enter = `set -e
mount --make-rprivate /
mount --rbind "$1" "$1"
cd "$1"
printf '%s' "$8" | while read -r lower upper at; do
	mount -t overlay -o "lowerdir=$lower,upperdir=$upper/upper,workdir=$upper/work" overlay ".$at"
done
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
pivot_root . mnt
cd /
exec /bin/sh -c 'umount -l /mnt; setpriv --reuid "$0" --regid "$0" --init-groups -- /usr/bin/env -i --default-signal "$@"; exit $?' "$2" "$3" "$4" "$5" "$6" "$7" /bin/bash -c "$9"
`

// command is a shell's command line, run by a person of the machine in the
// folder of the clone.
func (m machine) command(ctx context.Context, who, line string) *exec.Cmd {
	home := "/root"
	if who != "root" {
		home, line = "/home/"+who, "cd ~/rackseed\n"+line
	}
	var settings strings.Builder
	for name, value := range m.environ {
		fmt.Fprintf(&settings, "export %s=%s\n", name, tools.Quote(value))
	}
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", enter, "enter", m.root,
		who, "HOME="+home, "USER="+who, "LANG=C.UTF-8", "TERM=dumb", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		m.overlays(), settings.String()+line)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

// overlays are the lines "LOWER UPPER AT" of what is mounted: Go's caches of this
// machine are at the same paths in the newcomer's, as only so the compiler's
// results are found, and what is written over them is in folders of its own.
func (m machine) overlays() string {
	var b strings.Builder
	for name, dir := range m.caches {
		fmt.Fprintf(&b, "%s %s.%s %s\n", dir, m.root, name, dir)
	}
	return b.String()
}

// takeCaches makes what the overlays need: the folders that Go writes into are the
// person's in the upper layer.
func (m machine) takeCaches(t *testing.T) {
	t.Helper()
	const prepare = `upper=$1.$2 at=$3
mkdir -p "$upper/upper" "$upper/work" "$1$at"
cd "$at"
{ find . -maxdepth 1 -type d; [ ! -d cache ] || find cache -type d; } | (cd "$upper/upper" && xargs mkdir -p)
chown -R 1000:1000 "$upper/upper"
while [ "$at" != / ]; do
	chmod a+rx "$1$at"
	at=$(dirname "$at")
done
`
	for name, dir := range m.caches {
		output(t, exec.CommandContext(t.Context(), "sh", "-euc", prepare, "prepare", m.root, name, dir))
	}
}

// goSettings are values of "go env", without those that are empty.
func goSettings(t *testing.T, names ...string) map[string]string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", append([]string{"env", "-json"}, names...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{}
	if err := json.Unmarshal(out, &settings); err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(settings, func(_, value string) bool { return value == "" })
	return settings
}

// does runs a command line to its end, which must be a good one.
func (m machine) does(t *testing.T, line string) string {
	t.Helper()
	t.Logf("%s$ %s", user, line)
	return output(t, m.command(t.Context(), user, line))
}

// starts runs a command line until it prints what the pattern says, and then
// ends it with all that it started.
func (m machine) starts(t *testing.T, line, pattern string) {
	t.Helper()
	t.Logf("%s$ %s", user, line)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := m.command(ctx, user, line)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	want, seen := regexp.MustCompile(pattern), false
	lines := bufio.NewReader(read)
	for {
		text, err := lines.ReadString('\n')
		t.Log(strings.TrimRight(text, "\n"))
		if want.MatchString(text) {
			seen = true
			cancel()
			break
		}
		if err != nil {
			break
		}
	}
	err = errors.Join(cmd.Wait(), read.Close())
	if !seen {
		t.Fatalf("%s ended (%v) without %q", line, err, pattern)
	}
}

func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var said bytes.Buffer
	both := io.MultiWriter(&said, t.Output())
	cmd.Stdout, cmd.Stderr = both, both
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v", cmd.Args[len(cmd.Args)-1], err)
	}
	return said.String()
}

func toolsRoot(t *testing.T) tools.Root {
	t.Helper()
	cache, err := step.DefaultDir()
	if err != nil {
		t.Fatal(err)
	}
	unpacked, err := (&debian.Archive{Repository: repository(t), Cache: cache, Log: t.Output()}).Unpacked(t.Context(), "tools")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := (&step.Cache{Dir: cache, Progress: t.Output()}).Get(t.Context(), unpacked)
	if err != nil {
		t.Fatal(err)
	}
	return tools.Root(dir)
}

func repository(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, syscall.ENOENT)
}
