package containerimages

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/rackseed/rackseed/build/tartree"
)

// untar unpacks into dir what makeStore wrote: folders, files, links.
func untar(t *testing.T, dir string, b []byte) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, path)
		default:
			var contents []byte
			if contents, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, contents, os.FileMode(h.Mode).Perm())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestArchive(t *testing.T) {
	layers := map[string]tartree.Tree{"a": {}, "b": {}}
	if err := errors.Join(layers["a"].Bytes("/bin/a", 0o755, []byte("A")), layers["b"].Bytes("/bin/b", 0o755, []byte("B"))); err != nil {
		t.Fatal(err)
	}
	list := []image{
		{names: []string{"x/one:1", "x/two:1"}, layers: []string{"a"}, entrypoint: []string{"/bin/a"}},
		{names: []string{"x/three:1"}, layers: []string{"a", "b"}},
	}
	var made [2][]byte
	for i := range made {
		file := filepath.Join(t.TempDir(), "images.tar")
		if err := writeArchive(t.Context(), file, list, layers); err != nil {
			t.Fatal(err)
		}
		var err error
		if made[i], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(made[0], made[1]) {
		t.Error("the same images gave two different archives")
	}
	dir := t.TempDir()
	untar(t, dir, made[0])
	var index ocispec.Index
	readJSON(t, filepath.Join(dir, "index.json"), &index)
	var names []string
	for _, m := range index.Manifests {
		names = append(names, m.Annotations[nameAnnotation])
	}
	if got := strings.Join(names, " "); got != "x/one:1 x/two:1 x/three:1" {
		t.Errorf("names %q", got)
	}
	if index.Manifests[0].Digest != index.Manifests[1].Digest {
		t.Error("two names of one image have two manifests")
	}
	var manifest ocispec.Manifest
	readJSON(t, filepath.Join(dir, blobPath(index.Manifests[2].Digest)), &manifest)
	var config ocispec.Image
	readJSON(t, filepath.Join(dir, blobPath(manifest.Config.Digest)), &config)
	if len(manifest.Layers) != 2 || len(config.RootFS.DiffIDs) != 2 {
		t.Fatalf("%d layers, %d diff IDs, want two each", len(manifest.Layers), len(config.RootFS.DiffIDs))
	}
	for i, l := range manifest.Layers {
		d, err := describe(filepath.Join(dir, blobPath(l.Digest)))
		if err != nil || d.Digest != l.Digest || d.Size != l.Size || config.RootFS.DiffIDs[i] != l.Digest {
			t.Errorf("layer %d is %v (%v), the manifest says %v", i, d, err, l)
		}
	}
	if err := writeArchive(t.Context(), filepath.Join(t.TempDir(), "x"), []image{{names: []string{"x"}, layers: []string{"none"}}}, layers); err == nil {
		t.Error("an image of a layer that there is not was made")
	}
}

func readJSON(t *testing.T, file string, v any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// manyKeys and their values are enough for buckets with pages of their own,
// which bolt writes in random order within one transaction.
var manyKeys = func() (keys []string) {
	for i := range 40 {
		keys = append(keys, fmt.Sprint("key ", i))
	}
	return keys
}()

func value(key string) string { return strings.Repeat(key, 500) }

func reversed(keys []string) []string {
	keys = slices.Clone(keys)
	slices.Reverse(keys)
	return keys
}

// Two databases with the same contents, written in other orders and at other
// times, become the same bytes; and nothing but the times is changed.
func TestCanonicalise(t *testing.T) {
	var made [2][]byte
	for i, keys := range [][]string{manyKeys, append([]string{"x"}, reversed(manyKeys)...)} {
		dir := t.TempDir()
		from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
		writeDB(t, from, keys, time.Unix(int64(i), 0))
		if err := canonicalise(to, from, fixedTimes); err != nil {
			t.Fatal(err)
		}
		var err error
		if made[i], err = os.ReadFile(to); err != nil {
			t.Fatal(err)
		}
		db, err := bolt.Open(to, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.View(func(tx *bolt.Tx) error {
			b := tx.Bucket([]byte("v1")).Bucket([]byte("images"))
			if b.Sequence() != 7 || string(b.Bucket([]byte("key 7")).Get([]byte("name"))) != value("key 7") {
				t.Error("the copy has other contents")
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(made[0], made[1]) {
		t.Error("the same contents gave two different files")
	}
}

func writeDB(t *testing.T, file string, keys []string, now time.Time) {
	t.Helper()
	db, err := bolt.Open(file, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	stamp, err := now.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if err := db.Update(func(tx *bolt.Tx) error {
			v1, err := tx.CreateBucketIfNotExists([]byte("v1"))
			if err != nil {
				return err
			}
			images, err := v1.CreateBucketIfNotExists([]byte("images"))
			if err != nil {
				return err
			}
			b, err := images.CreateBucketIfNotExists([]byte(k))
			if err != nil {
				return err
			}
			return errors.Join(images.SetSequence(7), b.Put([]byte("createdat"), stamp), b.Put([]byte("name"), []byte(value(k))))
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Update(func(tx *bolt.Tx) error {
		images := tx.Bucket([]byte("v1")).Bucket([]byte("images"))
		if images.Bucket([]byte("x")) == nil {
			return nil
		}
		return images.DeleteBucket([]byte("x"))
	}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestNamespaces(t *testing.T) {
	if root := namespaces(0, 0); root.Cloneflags != 0 || len(root.UidMappings) != 0 {
		t.Errorf("root gets a user namespace: %+v", root)
	}
	if user := namespaces(1000, 1000); len(user.UidMappings) != 1 || user.UidMappings[0].HostID != 1000 || user.UidMappings[0].ContainerID != 0 {
		t.Errorf("an ordinary user is not root in its namespace: %+v", user)
	}
}
