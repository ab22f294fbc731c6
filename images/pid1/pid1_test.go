package pid1

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/build/host/notrun"
)

func TestCommandLine(t *testing.T) {
	c := ParseCommandLine("BOOT_IMAGE=/x rackseed.slot=a  quiet root=PARTUUID=12-34 a=1 a=2 v=\"x y\" \"q=r s\" empty=\n")
	for key, want := range map[string]string{"rackseed.slot": "a", "a": "2", "v": "x y", "q": "r s", "quiet": "", "none": ""} {
		if got := c.Get(key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	if !c.Has("quiet") || !c.Has("empty") || c.Has("none") || len(c) != 9 {
		t.Errorf("%d arguments: %v", len(c), c)
	}
	if uuid, err := c.PartUUID("root"); err != nil || uuid != "12-34" {
		t.Errorf("root: %q, %v", uuid, err)
	}
	if _, err := c.PartUUID("rackseed.data"); err == nil || !strings.Contains(err.Error(), "rackseed.data") {
		t.Errorf("an argument that is missing: %v", err)
	}
}

func TestChooseTime(t *testing.T) {
	built := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		now, wanted, want time.Time
		ok                bool
	}{
		{built.Add(-9000 * time.Hour), built.Add(time.Hour), built.Add(time.Hour), true},
		{built.Add(-9000 * time.Hour), built.Add(-9000 * time.Hour), built, true},
		{built.Add(time.Hour), built.Add(time.Hour + 900*time.Millisecond), time.Time{}, false},
		{built.Add(2 * time.Hour), built.Add(time.Hour), built.Add(time.Hour), true},
	} {
		if got, ok := ChooseTime(c.now, c.wanted, built); ok != c.ok || !got.Equal(c.want) {
			t.Errorf("now %s, wanted %s: %s, %v", c.now, c.wanted, got, ok)
		}
	}
	if _, err := time.Parse(time.RFC3339, BuildDate); err != nil {
		t.Errorf("the default build date: %v", err)
	}
}

func TestMountsBelow(t *testing.T) {
	mounts := "rootfs / rootfs rw 0 0\nx /a ext4 rw 0 0\nx /ab ext4 rw 0 0\nx /a/b\\040c ext4 rw 0 0\nx /a/b\\040c/d tmpfs rw 0 0\n"
	if got, want := mountsBelow(mounts, "/a"), []string{"/a/b c/d", "/a/b c", "/a"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestCopyTree(t *testing.T) {
	source, target := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	old := time.Date(2001, 2, 3, 4, 5, 6, 7000, time.UTC)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(source, "d/e"), 0o755))
	must(os.WriteFile(filepath.Join(source, "d/file"), []byte("content"), 0o600))
	must(unix.Chmod(filepath.Join(source, "d/file"), 0o4751))
	must(os.Link(filepath.Join(source, "d/file"), filepath.Join(source, "d/e/same")))
	must(os.Symlink("../nowhere", filepath.Join(source, "link")))
	must(unix.Mkfifo(filepath.Join(source, "fifo"), 0o640))
	must(os.Chtimes(filepath.Join(source, "d/file"), old, old))
	must(os.Chmod(filepath.Join(source, "d"), 0o500))
	must(os.Chtimes(filepath.Join(source, "d"), old, old))
	t.Cleanup(func() {
		must(os.Chmod(filepath.Join(source, "d"), 0o700))
		must(os.Chmod(filepath.Join(target, "d"), 0o700))
	})
	must(CopyTree(source, target))

	var file, same, dir unix.Stat_t
	must(unix.Lstat(filepath.Join(target, "d/file"), &file))
	must(unix.Lstat(filepath.Join(target, "d/e/same"), &same))
	must(unix.Lstat(filepath.Join(target, "d"), &dir))
	if file.Ino != same.Ino || file.Nlink != 2 {
		t.Error("the hard link became two files")
	}
	if file.Mode&0o7777 != 0o4751 || dir.Mode&0o7777 != 0o500 {
		t.Errorf("modes %o and %o", file.Mode, dir.Mode)
	}
	if file.Mtim.Nano() != old.UnixNano() || dir.Mtim.Nano() != old.UnixNano() {
		t.Error("times were not kept")
	}
	if b, err := os.ReadFile(filepath.Join(target, "d/file")); err != nil || string(b) != "content" {
		t.Errorf("%q, %v", b, err)
	}
	if to, err := os.Readlink(filepath.Join(target, "link")); err != nil || to != "../nowhere" {
		t.Errorf("symbolic link to %q, %v", to, err)
	}
	if st, err := os.Stat(filepath.Join(target, "fifo")); err != nil || st.Mode() != os.ModeNamedPipe|0o640 {
		t.Errorf("FIFO: %v, %v", st, err)
	}
	if err := CopyTree(source, target); err == nil {
		t.Error("a copy over another was made")
	}
}

// White-outs and opaque folders of containerd's overlays.
func TestCopyTreeAsRoot(t *testing.T) {
	notrun.InNamespace(t, "device nodes, owners and trusted attributes")
	source, target := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	if err := unix.Mknod(filepath.Join(source, "whiteout"), unix.S_IFCHR|0o600, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(filepath.Join(source, "whiteout"), 12, 34); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(source, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		t.Fatal(err)
	}
	if err := CopyTree(source, target); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(target, "whiteout"), &st); err != nil {
		t.Fatal(err)
	}
	if st.Mode != unix.S_IFCHR|0o600 || st.Rdev != 0 || st.Uid != 12 || st.Gid != 34 {
		t.Errorf("white-out: mode %o, device %d, owner %d:%d", st.Mode, st.Rdev, st.Uid, st.Gid)
	}
	value := make([]byte, 8)
	if n, err := unix.Getxattr(target, "trusted.overlay.opaque", value); err != nil || string(value[:n]) != "y" {
		t.Errorf("attribute %q, %v", value[:max(n, 0)], err)
	}
}

func TestFillVar(t *testing.T) {
	dir := t.TempDir()
	template, target := filepath.Join(dir, "template"), filepath.Join(dir, "var")
	for _, d := range []string{template + "/lib", target + ".new/half"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := fillVar(template, target); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(target + "/half"); err == nil {
		t.Error("what an interrupted copy left became part of var")
	}
	if err := os.WriteFile(target+"/lib/mine", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := fillVar(template, target); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(target + "/lib/mine"); err != nil {
		t.Errorf("a var that was there was replaced: %v", err)
	}
}

func TestSwitchRootRefusesARealRoot(t *testing.T) {
	var st unix.Statfs_t
	if err := unix.Statfs("/", &st); err != nil {
		t.Fatal(err)
	}
	if st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC {
		t.Skip("this machine's root is a tmpfs: the test would empty it")
	}
	if err := SwitchRoot(t.TempDir(), "/sbin/init", nil, nil); err == nil || !strings.Contains(err.Error(), "not an initramfs") {
		t.Errorf("got %v", err)
	}
}

func TestEmptyInitramfs(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/a/b", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/a/b/c", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", dir+"/l"); err != nil {
		t.Fatal(err)
	}
	if err := emptyInitramfs(dir); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := os.Stat("/etc/passwd"); err != nil {
		t.Fatal("a symbolic link was followed")
	}
}

func TestZombies(t *testing.T) {
	proc := fstest.MapFS{
		"1/stat":     {Data: []byte("1 (init) S 0 1 1 0")},
		"7/stat":     {Data: []byte("7 (od) d (x) Z 1 7 7 0")},
		"8/stat":     {Data: []byte("8 (sh) S 1 8 8 0")},
		"9/stat":     {Data: []byte("9 (sh) Z 8 9 9 0")},
		"10/stat":    {Data: []byte("broken")},
		"meminfo":    {Data: []byte("x")},
		"12/cmdline": {Data: []byte("x")},
	}
	if got := zombies(proc, 1); !reflect.DeepEqual(got, []int{7}) {
		t.Errorf("zombies %v, want 7", got)
	}
}

func TestChildren(t *testing.T) {
	var c Children
	ctx := context.Background()
	out, err := c.Output(ctx, "sh", "-c", "echo one; echo two >&2; exit 3")
	if out != "one\ntwo\n" || err == nil || !strings.Contains(err.Error(), "exit status 3: two") {
		t.Errorf("%q, %v", out, err)
	}
	// A program of ours that has ended but is not waited for keeps its status
	// while orphans are reaped.
	cmd := exec.Command("sh", "-c", "exit 4")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if _, err := new(bytes.Buffer).ReadFrom(stdout); err != nil { // until it has ended
		t.Fatal(err)
	}
	c.reapOnce()
	if err := c.Wait(cmd); err == nil || cmd.ProcessState.ExitCode() != 4 {
		t.Errorf("its status was lost: %v", err)
	}
	if len(c.known) != 0 {
		t.Errorf("still known: %v", c.known)
	}
}

func TestLineHandler(t *testing.T) {
	var lines []string
	h := NewLineHandler(slog.LevelInfo, func(l string) { lines = append(lines, l) })
	h.since = time.Now()
	log := slog.New(h).With("disk", "/dev/vda").WithGroup("g")
	log.Debug("no")
	log.Warn("it\nbroke", "model", "a b", "n", 3)
	if len(lines) != 1 {
		t.Fatalf("%q", lines)
	}
	if _, rest, _ := strings.Cut(lines[0], "] "); rest != `warn: it; broke disk=/dev/vda g.model="a b" g.n=3` {
		t.Errorf("%q", lines[0])
	}
}
