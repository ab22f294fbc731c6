package tartree

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var epoch = time.Unix(1795478400, 0)

func write(t *testing.T, tree Tree) (file string, b []byte) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "x.tar")
	if err := tree.Write(t.Context(), file, epoch); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return file, b
}

func example(t *testing.T) Tree {
	t.Helper()
	tree := Tree{}
	host := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(host, []byte("program"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		tree.Bytes("/etc/a", 0o600, []byte("secret")),
		tree.File("usr/bin/b", 0o755, host),
		tree.Symlink("bin", "usr/bin"),
		tree.Dir("var/lib/x", 0o700),
		tree.Put("usr/bin/ping", Entry{Type: tar.TypeReg, Mode: 0o4755, UID: 1, GID: 2, XAttrs: map[string]string{"security.capability": "cap"}, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("")), nil }}),
	); err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestWriteIsRepeatableAndSorted(t *testing.T) {
	tree := example(t)
	_, one := write(t, tree)
	_, two := write(t, tree)
	if !bytes.Equal(one, two) {
		t.Error("one tree was written as two different files")
	}
	r := tar.NewReader(bytes.NewReader(one))
	var names []string
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		if !h.ModTime.Equal(epoch) {
			t.Errorf("%s is of %s, want %s", h.Name, h.ModTime, epoch)
		}
	}
	want := []string{"./", "bin", "etc/", "etc/a", "usr/", "usr/bin/", "usr/bin/b", "usr/bin/ping", "var/", "var/lib/", "var/lib/x/"}
	if !slices.Equal(names, want) {
		t.Errorf("names %q, want %q", names, want)
	}
}

func TestTarIsReadAsItWasWritten(t *testing.T) {
	tree := example(t)
	file, one := write(t, tree)
	again := Tree{}
	if err := again.Tar("/", file, nil); err != nil {
		t.Fatal(err)
	}
	if _, two := write(t, again); !bytes.Equal(one, two) {
		t.Error("a tree that was read back is written differently")
	}
	if e := again[""]; e.Type != tar.TypeDir || e.Mode != 0o755 {
		t.Errorf("the root became %+v, want a folder of mode 0755", e)
	}
	below := Tree{}
	if err := below.Tar("/store", file, func(p string, _ Entry) bool { return p == "etc/a" }); err != nil {
		t.Fatal(err)
	}
	if _, ok := below["store/etc/a"]; ok {
		t.Error("what drop names is there")
	}
	if e := below["store/usr/bin/ping"]; e.Mode != 0o4755 || e.UID != 1 || e.GID != 2 || e.XAttrs["security.capability"] != "cap" {
		t.Errorf("ping became %+v", e)
	}
}

func TestTarRefusesPathsThatLeadOut(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.tar")
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "../x", Typeflag: tar.TypeDir, Mode: 0o755}), w.Close(), os.WriteFile(file, b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := (Tree{}).Tar("/", file, nil); err == nil || !strings.Contains(err.Error(), "out of the tree") {
		t.Errorf("error %v, want one about the path", err)
	}
}

func TestPutThroughALink(t *testing.T) {
	tree := example(t)
	if err := tree.Bytes("/bin/x", 0o755, nil); err == nil || !strings.Contains(err.Error(), "usr/bin") {
		t.Errorf("a file below a link: error %v, want one that names where the link leads", err)
	}
	if err := tree.Bytes("/etc", 0o644, nil); err == nil {
		t.Error("a file took a folder's name")
	}
}

func TestShare(t *testing.T) {
	tree := Tree{}
	big := bytes.Repeat([]byte("x"), 100)
	if err := errors.Join(
		tree.Bytes("a", 0o755, big), tree.Bytes("b", 0o755, big), tree.Bytes("other-mode", 0o644, big),
		tree.Bytes("other", 0o755, bytes.Repeat([]byte("y"), 100)), tree.Bytes("small1", 0o755, []byte("x")), tree.Bytes("small2", 0o755, []byte("x")),
	); err != nil {
		t.Fatal(err)
	}
	saved, err := tree.Share(100)
	if err != nil || saved != 100 {
		t.Errorf("saved %d, %v; want 100", saved, err)
	}
	for p, e := range tree {
		if want := p == "b"; (e.Type == tar.TypeLink) != want {
			t.Errorf("%s: hard link is %t", p, !want)
		}
	}
	if tree["b"].Link != "a" {
		t.Errorf("b links to %q", tree["b"].Link)
	}
	// A link comes after what it names, whatever their names.
	if paths := tree.Paths(); paths[len(paths)-1] != "b" {
		t.Errorf("order %q", paths)
	}
}

func TestFolderKeepsWhatGitKeeps(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "etc/d"), 0o700),
		os.WriteFile(filepath.Join(dir, "etc/run"), nil, 0o700),
		os.WriteFile(filepath.Join(dir, "etc/conf"), nil, 0o600),
		os.Symlink("conf", filepath.Join(dir, "etc/link")),
	); err != nil {
		t.Fatal(err)
	}
	tree := Tree{}
	if err := errors.Join(tree.Dir("etc", 0o711), tree.Folder("/", dir)); err != nil {
		t.Fatal(err)
	}
	if tree["etc"].Mode != 0o711 || tree["etc/d"].Mode != 0o755 || tree["etc/run"].Mode != 0o755 || tree["etc/conf"].Mode != 0o644 || tree["etc/link"].Link != "conf" {
		t.Errorf("became %v", tree)
	}
}
