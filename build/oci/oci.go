// Package oci writes artifacts as an OCI image layout
// (https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md):
// the form in which the boot service keeps everything that machines load.
package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Artifact types, as docs/interfaces.md lists them.
const (
	TypeFirmware = "application/vnd.rackseed.firmware.v1"
	TypeBoot     = "application/vnd.rackseed.boot.v1"
	TypeNode     = "application/vnd.rackseed.node.v1"

	layerType = "application/octet-stream"
)

// Artifact is a named set of files.
type Artifact struct {
	Ref   string // org.opencontainers.image.ref.name in the index
	Type  string
	Files map[string]string // title → file on this machine
}

// Image is a container image: layers that are not compressed, as nodes run it.
type Image struct {
	Ref        string
	Layers     []string // tar files, from the lowest
	Entrypoint []string
	Created    time.Time
}

// Content is what a layout has under a name.
type Content interface {
	name() string
	write(w writer) (v1.Descriptor, error)
}

func (a Artifact) name() string                          { return a.Ref }
func (a Artifact) write(w writer) (v1.Descriptor, error) { return w.artifact(a) }
func (i Image) name() string                             { return i.Ref }
func (i Image) write(w writer) (v1.Descriptor, error)    { return w.image(i) }

// Write makes the layout in dir, which must be empty or absent. The same files
// give the same bytes: files are sorted by title, and an artifact has no date.
func Write(dir string, contents ...Content) error {
	w := writer{blobs: filepath.Join(dir, v1.ImageBlobsDir, "sha256")}
	if err := os.MkdirAll(w.blobs, 0o755); err != nil {
		return fmt.Errorf("OCI layout: %w", err)
	}
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}
	for _, c := range contents {
		d, err := c.write(w)
		if err != nil {
			return fmt.Errorf("OCI layout: artifact %s: %w", c.name(), err)
		}
		index.Manifests = append(index.Manifests, d)
	}
	slices.SortFunc(index.Manifests, func(a, b v1.Descriptor) int {
		return strings.Compare(a.Annotations[v1.AnnotationRefName], b.Annotations[v1.AnnotationRefName])
	})
	return errors.Join(
		writeJSON(filepath.Join(dir, v1.ImageIndexFile), index),
		writeJSON(filepath.Join(dir, v1.ImageLayoutFile), v1.ImageLayout{Version: v1.ImageLayoutVersion}),
	)
}

type writer struct{ blobs string }

func (w writer) artifact(a Artifact) (v1.Descriptor, error) {
	if _, err := w.bytes(v1.DescriptorEmptyJSON.Data); err != nil {
		return v1.Descriptor{}, err
	}
	// The empty config's data is left out of the descriptor: it is a blob.
	config := v1.Descriptor{MediaType: v1.MediaTypeEmptyJSON, Digest: v1.DescriptorEmptyJSON.Digest, Size: v1.DescriptorEmptyJSON.Size}
	m := v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		ArtifactType: a.Type, Config: config, Layers: []v1.Descriptor{},
	}
	titles := make([]string, 0, len(a.Files))
	for t := range a.Files {
		titles = append(titles, t)
	}
	slices.Sort(titles)
	for _, t := range titles {
		d, err := w.file(a.Files[t])
		if err != nil {
			return v1.Descriptor{}, fmt.Errorf("%s: %w", t, err)
		}
		d.MediaType, d.Annotations = layerType, map[string]string{v1.AnnotationTitle: t}
		m.Layers = append(m.Layers, d)
	}
	b, err := json.Marshal(m)
	if err != nil {
		return v1.Descriptor{}, err
	}
	d, err := w.bytes(b)
	d.MediaType, d.ArtifactType = v1.MediaTypeImageManifest, a.Type
	d.Annotations = map[string]string{v1.AnnotationRefName: a.Ref}
	return d, err
}

// image writes a container image (image-spec, config.md). Its layers have titles,
// as an artifact's files have.
func (w writer) image(i Image) (v1.Descriptor, error) {
	config := v1.Image{
		Created: &i.Created, Platform: v1.Platform{Architecture: "amd64", OS: "linux"},
		Config: v1.ImageConfig{Entrypoint: i.Entrypoint}, RootFS: v1.RootFS{Type: "layers"},
	}
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	for n, l := range i.Layers {
		d, err := w.file(l)
		if err != nil {
			return v1.Descriptor{}, err
		}
		d.MediaType, d.Annotations = v1.MediaTypeImageLayer, map[string]string{v1.AnnotationTitle: fmt.Sprintf("layer-%d.tar", n+1)}
		m.Layers = append(m.Layers, d)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, d.Digest) // not compressed: one digest for both
	}
	b, err := json.Marshal(config)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if m.Config, err = w.bytes(b); err != nil {
		return v1.Descriptor{}, err
	}
	m.Config.MediaType = v1.MediaTypeImageConfig
	if b, err = json.Marshal(m); err != nil {
		return v1.Descriptor{}, err
	}
	d, err := w.bytes(b)
	d.MediaType, d.Annotations = v1.MediaTypeImageManifest, map[string]string{v1.AnnotationRefName: i.Ref}
	return d, err
}

func (w writer) bytes(b []byte) (v1.Descriptor, error) {
	d := v1.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}
	return d, os.WriteFile(filepath.Join(w.blobs, d.Digest.Encoded()), b, 0o644)
}

// file links a file into the layout, or copies it where it lies on another
// file system. Nothing in a layout is ever changed, and build outputs are not
// either.
func (w writer) file(path string) (v1.Descriptor, error) {
	f, err := os.Open(path)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return v1.Descriptor{}, err
	}
	hex := hex.EncodeToString(h.Sum(nil))
	blob := filepath.Join(w.blobs, hex)
	d := v1.Descriptor{Digest: digest.NewDigestFromEncoded(digest.SHA256, hex), Size: n}
	if err := os.Link(path, blob); err == nil || errors.Is(err, fs.ErrExist) {
		return d, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return v1.Descriptor{}, err
	}
	out, err := os.Create(blob)
	if err != nil {
		return v1.Descriptor{}, err
	}
	_, err = io.Copy(out, f)
	return d, errors.Join(err, out.Close())
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}
