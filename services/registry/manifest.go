package registry

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"cuelabs.dev/go/oci/ociregistry"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/rackseed/rackseed/services/blob"
	"github.com/rackseed/rackseed/services/wire"
)

// Docker's media types (image manifest version 2, schema 2).
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// manifest is what is read of an image manifest or an index.
type manifest struct {
	mediaType string
	index     bool
	names     []named // what it names and must be here
}

// named is a blob or manifest that a manifest names.
type named struct {
	what   string // "layer 2"
	title  string // the file's name, if it has one
	digest blob.Digest
	size   int64
}

// parseManifest reads a manifest or an index. contentType is what it was sent
// as; empty for one that is read back, whose media type is found in itself or
// by its form.
func parseManifest(b []byte, contentType string) (manifest, error) {
	var m struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Config        *v1.Descriptor  `json:"config"`
		Layers        []v1.Descriptor `json:"layers"`
		Manifests     []v1.Descriptor `json:"manifests"`
		Subject       *v1.Descriptor  `json:"subject"` // that it is one: it need not be here
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return manifest{}, invalid("it is not JSON as expected: %v", err)
	}
	if m.SchemaVersion != 2 {
		return manifest{}, invalid("schemaVersion %d: 2 is expected", m.SchemaVersion)
	}
	// Two readers of one digest must not see two things (CVE-2021-41190).
	if m.Manifests != nil && (m.Config != nil || m.Layers != nil) {
		return manifest{}, invalid("it has manifests as an index and config or layers as an image: it cannot be both")
	}
	if m.MediaType != "" && contentType != "" && m.MediaType != contentType {
		return manifest{}, invalid("it calls itself %.100q and was sent as %.100q", m.MediaType, contentType)
	}
	mediaType := m.MediaType
	if mediaType == "" {
		mediaType = v1.MediaTypeImageManifest
		if m.Manifests != nil {
			mediaType = v1.MediaTypeImageIndex
		}
		// It is read back without what it was sent as.
		if contentType != "" && contentType != mediaType {
			return manifest{}, invalid("it was sent as %.100q and has no mediaType that says so", contentType)
		}
	}
	out := manifest{mediaType: mediaType}
	switch mediaType {
	case v1.MediaTypeImageManifest, dockerManifest:
	case v1.MediaTypeImageIndex, dockerList:
		out.index = true
	default:
		return manifest{}, invalid("media type %.100q: an OCI or Docker (schema 2) image manifest or index is expected", mediaType)
	}
	if out.index {
		return out, out.add("manifest", m.Manifests)
	}
	if m.Config == nil {
		return manifest{}, invalid("it has no config")
	}
	if err := out.add("config", []v1.Descriptor{*m.Config}); err != nil {
		return manifest{}, err
	}
	return out, out.add("layer", m.Layers)
}

func (m *manifest) add(what string, list []v1.Descriptor) error {
	for i, d := range list {
		name := what
		if what != "config" {
			name = fmt.Sprintf("%s %d", what, i+1)
		}
		digest, err := blob.Parse(string(d.Digest))
		if err != nil {
			return invalid("%s: %v", name, err)
		}
		if d.Size < 0 {
			return invalid("%s: its size is %d bytes", name, d.Size)
		}
		if elsewhere(d) {
			continue
		}
		m.names = append(m.names, named{name, d.Annotations[v1.AnnotationTitle], digest, d.Size})
	}
	return nil
}

// elsewhere says whether a layer is by its kind not for registries, as those
// that a licence keeps at their maker's (image-spec, layer.md).
func elsewhere(d v1.Descriptor) bool {
	return strings.HasPrefix(d.MediaType, "application/vnd.oci.image.layer.nondistributable.") ||
		strings.HasPrefix(d.MediaType, "application/vnd.docker.image.rootfs.foreign.")
}

// maxNesting is how deep an index is looked into.
const maxNesting = 3

// Files lists what an image consists of, each blob once: by their titles where
// they have one, as an artifact's, and else as "config" and "layer 2". What an
// index names is listed behind "manifest 1: ".
func Files(store *blob.Store, digest string) ([]wire.File, error) {
	var files []wire.File
	seen := map[blob.Digest]bool{blob.Digest(v1.DescriptorEmptyJSON.Digest): true}
	if err := list(store, blob.Digest(digest), "", maxNesting, seen, &files); err != nil {
		return nil, err
	}
	return files, nil
}

func list(store *blob.Store, digest blob.Digest, before string, depth int, seen map[blob.Digest]bool, files *[]wire.File) error {
	m, err := readManifest(store, digest)
	if err != nil {
		return err
	}
	for _, n := range m.names {
		if seen[n.digest] {
			continue
		}
		seen[n.digest] = true
		name := n.title
		if name == "" {
			name = n.what
		}
		if !m.index {
			*files = append(*files, wire.File{Name: before + name, Digest: string(n.digest), Size: n.size})
		} else if depth > 0 {
			if err := list(store, n.digest, before+name+": ", depth-1, seen, files); err != nil {
				return err
			}
		}
	}
	return nil
}

// readManifest reads a manifest or an index that is here.
func readManifest(store *blob.Store, digest blob.Digest) (manifest, error) {
	content, err := store.Document(digest)
	if err != nil {
		return manifest{}, err
	}
	return parseManifest(content, "")
}

// Lack is a blob of an image that is not here. Size is -1 where it is not known,
// as of a manifest that only a name tells of.
type Lack struct {
	Digest blob.Digest
	Size   int64
}

// Missing lists what of an image is not here. A manifest that is missing hides
// what it names: once it is here, Missing tells more.
func Missing(store *blob.Store, digest string) ([]Lack, error) {
	var lacks []Lack
	seen := map[blob.Digest]bool{blob.Digest(v1.DescriptorEmptyJSON.Digest): true}
	return lacks, missing(store, Lack{blob.Digest(digest), -1}, maxNesting, seen, &lacks)
}

func missing(store *blob.Store, of Lack, depth int, seen map[blob.Digest]bool, lacks *[]Lack) error {
	if seen[of.Digest] {
		return nil
	}
	seen[of.Digest] = true
	if !store.Has(of.Digest) {
		*lacks = append(*lacks, of)
		return nil
	}
	m, err := readManifest(store, of.Digest)
	if err != nil {
		return err
	}
	for _, n := range m.names {
		if m.index {
			if depth > 0 {
				if err := missing(store, Lack{n.digest, n.size}, depth-1, seen, lacks); err != nil {
					return err
				}
			}
			continue
		}
		if !seen[n.digest] && !store.Has(n.digest) {
			*lacks = append(*lacks, Lack{n.digest, n.size})
		}
		seen[n.digest] = true
	}
	return nil
}

func invalid(format string, args ...any) error {
	return refuse(http.StatusBadRequest, ociregistry.ErrManifestInvalid, "manifest: "+format, args...)
}
