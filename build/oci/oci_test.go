package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// Read back by a reader that is not ours.
func TestLayoutIsReadByGoContainerRegistry(t *testing.T) {
	src := t.TempDir()
	file := func(name, text string) string {
		p := filepath.Join(src, name)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	artifacts := []Content{
		Artifact{Ref: "node", Type: TypeNode, Files: map[string]string{"vmlinuz": file("k", "kernel"), "root.erofs": file("r", "root")}},
		Artifact{Ref: "ipxe", Type: TypeFirmware, Files: map[string]string{"snponly.efi": file("s", "efi")}},
	}
	dir := t.TempDir()
	if err := Write(dir, artifacts...); err != nil {
		t.Fatal(err)
	}
	l, err := layout.FromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	index, err := l.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	im, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(im.Manifests) != 2 || im.Manifests[1].Annotations["org.opencontainers.image.ref.name"] != "node" || im.Manifests[1].ArtifactType != TypeNode {
		t.Fatalf("index: %+v", im.Manifests)
	}
	img, err := l.Image(im.Manifests[1].Digest)
	if err != nil {
		t.Fatal(err)
	}
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, d := range m.Layers {
		r, err := l.Blob(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		got[d.Annotations["org.opencontainers.image.title"]] = string(b)
	}
	if len(got) != 2 || got["vmlinuz"] != "kernel" || got["root.erofs"] != "root" {
		t.Errorf("files: %v", got)
	}

	again := t.TempDir()
	if err := Write(again, artifacts[1], artifacts[0]); err != nil {
		t.Fatal(err)
	}
	if a, b := sum(t, dir), sum(t, again); a != b {
		t.Errorf("written twice, the layouts differ: %s, %s", a, b)
	}
}

func TestMissingFileNamesArtifactAndTitle(t *testing.T) {
	err := Write(t.TempDir(), Artifact{Ref: "node", Files: map[string]string{"vmlinuz": "/nowhere/k"}})
	if err == nil || !strings.Contains(err.Error(), "node") || !strings.Contains(err.Error(), "vmlinuz") {
		t.Errorf("got %v", err)
	}
}

func sum(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, p))
		h.Write([]byte(p))
		h.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}
