package blob

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
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/rackseed/rackseed/services/wire"
)

// MaxDocument is the most that an index or a manifest may have, in bytes.
const MaxDocument = 4 << 20

// Index is index.json of each layout that is there, the writable one first.
func (s *Store) Index() ([]v1.Index, error) {
	var out []v1.Index
	for _, layout := range s.layouts {
		p := filepath.Join(layout, v1.ImageIndexFile)
		f, err := os.Open(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("the index of a blob store: %w", err)
		}
		var index v1.Index
		b, err := readDocument(f)
		if err == nil {
			err = json.Unmarshal(b, &index)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("the index %s: %w", p, err)
		}
		out = append(out, index)
	}
	return out, nil
}

// ReadDocument reads a small blob out of what was opened, as Document does.
func ReadDocument(r io.Reader, d Digest) ([]byte, error) {
	b, err := readDocument(r)
	if err == nil {
		if sum := sha256.Sum256(b); "sha256:"+hex.EncodeToString(sum[:]) != string(d) {
			err = fmt.Errorf("its bytes have another digest, sha256:%x: the medium is damaged", sum)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d, err)
	}
	return b, nil
}

func readDocument(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxDocument+1))
	if err == nil && len(b) > MaxDocument {
		err = fmt.Errorf("it has over %d bytes", MaxDocument)
	}
	return b, err
}

// Document reads a small blob, as a manifest or an index, and compares it with
// its digest.
func (s *Store) Document(d Digest) ([]byte, error) {
	f, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	b, err := ReadDocument(f, d)
	return b, errors.Join(err, f.Close())
}

// Manifest reads an image manifest.
func (s *Store) Manifest(d Digest) (v1.Manifest, error) {
	b, err := s.Document(d)
	if err != nil {
		return v1.Manifest{}, fmt.Errorf("manifest %s: %w", d, err)
	}
	return parseManifest(d, b)
}

func parseManifest(d Digest, content []byte) (v1.Manifest, error) {
	var m v1.Manifest
	err := json.Unmarshal(content, &m)
	if err == nil && (m.SchemaVersion != 2 || (m.MediaType != "" && m.MediaType != v1.MediaTypeImageManifest)) {
		err = fmt.Errorf("it is no image manifest but %.80q, version %d", m.MediaType, m.SchemaVersion)
	}
	if err != nil {
		return v1.Manifest{}, fmt.Errorf("manifest %s: %w", d, err)
	}
	return m, nil
}

// Artifact finds an artifact by its name in the layouts' indexes, and its
// files. It answers the first layout's that has it, the writable one first.
func (s *Store) Artifact(ref string) (Digest, []wire.File, error) {
	indexes, err := s.Index()
	if err != nil {
		return "", nil, err
	}
	for _, index := range indexes {
		var found Digest
		for _, m := range index.Manifests {
			if m.Annotations[v1.AnnotationRefName] != ref {
				continue
			}
			d, err := Parse(string(m.Digest))
			if err != nil {
				return "", nil, fmt.Errorf("artifact %s: its manifest: %w", ref, err)
			}
			if found != "" && found != d {
				return "", nil, fmt.Errorf("artifact %s: one index names %s and %s: remove one", ref, found, d)
			}
			found = d
		}
		if found != "" {
			files, err := s.Files(found)
			if err != nil {
				return "", nil, fmt.Errorf("artifact %s: %w", ref, err)
			}
			return found, files, nil
		}
	}
	return "", nil, fmt.Errorf("artifact %s is in none of %v: %w", ref, s.layouts, fs.ErrNotExist)
}

// Files are the files of an artifact, by the digest of its manifest. Their
// blobs may be absent: see Has.
func (s *Store) Files(manifest Digest) ([]wire.File, error) {
	b, err := s.Document(manifest)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", manifest, err)
	}
	return FilesOf(manifest, b)
}

// FilesOf are the files of an artifact whose manifest was read.
func FilesOf(manifest Digest, content []byte) ([]wire.File, error) {
	m, err := parseManifest(manifest, content)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var files []wire.File
	for n, l := range m.Layers {
		name := l.Annotations[v1.AnnotationTitle]
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\\\x00") || seen[name] {
			return nil, fmt.Errorf("manifest %s: layer %d has the title %.80q: a file name of its own is expected", manifest, n+1, name)
		}
		d, err := Parse(string(l.Digest))
		if err != nil || l.Size < 0 {
			return nil, fmt.Errorf("manifest %s: file %s, %d bytes: %w", manifest, name, l.Size, errors.Join(err, errSize(l.Size)))
		}
		seen[name] = true
		files = append(files, wire.File{Name: name, Digest: string(d), Size: l.Size})
	}
	return files, nil
}

func errSize(n int64) error {
	if n < 0 {
		return errors.New("its size is below nothing")
	}
	return nil
}
