// Package containerimages makes the container images that a node has from the
// start, and containerd's folder with all of them imported and unpacked: a node
// pulls and imports nothing.
package containerimages

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/rackseed/rackseed/build/pins"
	"github.com/rackseed/rackseed/build/tartree"
)

// nameAnnotation is where containerd looks for an image's whole name.
const nameAnnotation = "io.containerd.image.name"

// image is one or more names for the same layers.
type image struct {
	names      []string
	layers     []string // keys of the layers' map
	entrypoint []string
}

// writeArchive writes images and layers as one OCI image layout in a tar file
// (image-spec, image-layout.md), in which each layer is there once. Layers are
// not compressed: containerd unpacks them at once and forgets them.
func writeArchive(ctx context.Context, file string, images []image, layers map[string]tartree.Tree) (err error) {
	work, err := os.MkdirTemp(filepath.Dir(file), "layers-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	out := tartree.Tree{}
	descriptors := map[string]ocispec.Descriptor{}
	for name, layer := range layers {
		path := filepath.Join(work, name)
		if err := layer.Write(ctx, path, pins.Epoch()); err != nil {
			return fmt.Errorf("layer %s: %w", name, err)
		}
		d, err := describe(path)
		if err != nil {
			return fmt.Errorf("layer %s: %w", name, err)
		}
		if err := out.File(blobPath(d.Digest), 0o644, path); err != nil {
			return err
		}
		descriptors[name] = d
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, img := range images {
		manifest, err := putImage(out, img, descriptors)
		if err != nil {
			return fmt.Errorf("image %s: %w", img.names[0], err)
		}
		for _, name := range img.names {
			manifest.Annotations = map[string]string{nameAnnotation: name}
			index.Manifests = append(index.Manifests, manifest)
		}
	}
	indexJSON, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if err := errors.Join(
		out.Bytes(ocispec.ImageIndexFile, 0o644, indexJSON),
		out.Bytes(ocispec.ImageLayoutFile, 0o644, []byte(`{"imageLayoutVersion":"`+ocispec.ImageLayoutVersion+`"}`)),
	); err != nil {
		return err
	}
	return out.Write(ctx, file, pins.Epoch())
}

// putImage adds an image's config and manifest, and describes the manifest.
func putImage(out tartree.Tree, img image, layers map[string]ocispec.Descriptor) (ocispec.Descriptor, error) {
	created := pins.Epoch()
	config := ocispec.Image{
		Created:  &created,
		Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"},
		Config: ocispec.ImageConfig{
			Env:        []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			Entrypoint: img.entrypoint,
		},
		RootFS: ocispec.RootFS{Type: "layers"},
	}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, name := range img.layers {
		d, ok := layers[name]
		if !ok {
			return ocispec.Descriptor{}, fmt.Errorf("there is no layer %s", name)
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, d.Digest) // not compressed: one digest for both
		manifest.Layers = append(manifest.Layers, d)
	}
	var err error
	if manifest.Config, err = putJSON(out, ocispec.MediaTypeImageConfig, config); err != nil {
		return ocispec.Descriptor{}, err
	}
	return putJSON(out, ocispec.MediaTypeImageManifest, manifest)
}

func putJSON(out tartree.Tree, mediaType string, v any) (ocispec.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	return d, out.Bytes(blobPath(d.Digest), 0o644, b)
}

func blobPath(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

func describe(path string) (ocispec.Descriptor, error) {
	f, err := os.Open(path)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(h.Sum(nil))), Size: n}, nil
}
