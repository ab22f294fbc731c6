package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	ocidigest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func digestOf(b string) Digest { return Digest(fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(b)))) }

func newStore(t *testing.T, readOnly ...string) (*Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := Open(dir, readOnly...)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

func put(t *testing.T, s *Store, text string) Digest {
	t.Helper()
	d, n, err := s.Put(t.Context(), strings.NewReader(text), digestOf(text))
	if err != nil || d != digestOf(text) || n != int64(len(text)) {
		t.Fatalf("put: %s, %d, %v", d, n, err)
	}
	return d
}

func read(t *testing.T, s *Store, d Digest) string {
	t.Helper()
	f, err := s.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// entries lists a folder, which must hold no more than the test says.
func entries(t *testing.T, dir ...string) []string {
	t.Helper()
	all, err := os.ReadDir(filepath.Join(dir...))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

func TestParse(t *testing.T) {
	good := string(digestOf("x"))
	for s, ok := range map[string]bool{
		good: true, strings.ToUpper(good): false, good[:70]: false, good + "0": false, good + "\n": false, "": false,
		"sha512:" + good[7:]: false, good[7:]: false, "sha256:../../../../etc/passwd": false,
		"sha256:" + strings.Repeat("../", 21) + "x": false,
	} {
		if _, err := Parse(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestPutAndOpen(t *testing.T) {
	s, dir := newStore(t)
	d := put(t, s, "hello")
	if got := read(t, s, d); got != "hello" {
		t.Errorf("read %q", got)
	}
	unnamed, n, err := s.Put(t.Context(), strings.NewReader("chunk"), "")
	if err != nil || unnamed != digestOf("chunk") || n != 5 || !s.Has(unnamed) {
		t.Errorf("put without a digest: %s, %d, %v", unnamed, n, err)
	}
	if _, _, err := s.Put(t.Context(), strings.NewReader("hello"), ""); err != nil || read(t, s, d) != "hello" {
		t.Errorf("put twice: %v", err)
	}
	if left := entries(t, dir, partial); len(left) != 0 {
		t.Errorf("left aside: %v", left)
	}
	again, err := Open(dir)
	if err != nil || !again.Has(d) {
		t.Errorf("opened again: %v", err)
	}
}

func TestPutRefuses(t *testing.T) {
	s, dir := newStore(t)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	broken := errors.New("the line broke")
	for name, test := range map[string]struct {
		ctx  context.Context
		from io.Reader
		want Digest
		err  string
	}{
		"other bytes":      {t.Context(), strings.NewReader("evil"), digestOf("good"), "digest mismatch after 4 bytes"},
		"a broken source":  {t.Context(), io.MultiReader(strings.NewReader("go"), iotestError{broken}), digestOf("good"), "the line broke"},
		"a cancelled wait": {cancelled, strings.NewReader("good"), digestOf("good"), "canceled"},
		"a path":           {t.Context(), strings.NewReader("x"), "sha256:../../x", "64 lower-case hex digits"},
	} {
		if _, _, err := s.Put(test.ctx, test.from, test.want); err == nil || !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: error %v, want %q", name, err, test.err)
		}
	}
	if left, blobs := entries(t, dir, partial), entries(t, dir, "blobs", "sha256"); len(left)+len(blobs) != 0 {
		t.Errorf("kept of what was refused: %v, %v", left, blobs)
	}
}

func TestUpload(t *testing.T) {
	below, belowDir := newStore(t)
	put(t, below, "on the ISO")
	s, dir := newStore(t, belowDir)
	upload := func(pieces ...string) *Upload {
		t.Helper()
		u, err := s.Create()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pieces {
			if n, err := io.WriteString(u, p); err != nil || n != len(p) {
				t.Fatalf("write: %d, %v", n, err)
			}
		}
		return u
	}
	u := upload("hel", "lo")
	if s.Has(digestOf("hello")) || u.Size() != 5 {
		t.Errorf("seen before it is whole, or of %d bytes", u.Size())
	}
	if d, err := u.Commit(digestOf("hello")); err != nil || d != digestOf("hello") || read(t, s, d) != "hello" {
		t.Errorf("%s, %v", d, err)
	}
	if _, err := upload("evil").Commit(digestOf("good")); !errors.Is(err, ErrMismatch) || s.Has(digestOf("evil")) {
		t.Errorf("other bytes: %v", err)
	}
	if err := upload("half").Abort(); err != nil || s.Has(digestOf("half")) {
		t.Errorf("aborted: %v", err)
	}
	if d, err := upload("on the ", "ISO").Commit(""); err != nil || !s.Has(d) {
		t.Errorf("what is below: %s, %v", d, err)
	}
	if blobs, left := entries(t, dir, "blobs", "sha256"), entries(t, dir, partial); len(blobs) != 1 || len(left) != 0 {
		t.Errorf("blobs %v, aside %v", blobs, left)
	}
	long := strings.Repeat("0123456789", syncEach/10)
	if d, err := upload(long, "end").Commit(digestOf(long + "end")); err != nil || read(t, s, d) != long+"end" {
		t.Errorf("a long one: %v", err)
	}
	if free, err := s.Free(); err != nil || free <= 0 {
		t.Errorf("free: %d, %v", free, err)
	}
}

type iotestError struct{ err error }

func (e iotestError) Read([]byte) (int, error) { return 0, e.err }

func TestPutOfWhatIsHereReadsNothing(t *testing.T) {
	s, _ := newStore(t)
	d := put(t, s, "hello")
	if got, n, err := s.Put(t.Context(), iotestError{errors.New("read")}, d); err != nil || got != d || n != 5 {
		t.Errorf("%s, %d, %v", got, n, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	s, dir := newStore(t)
	if err := os.WriteFile(filepath.Join(dir, "secret"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range []Digest{"sha256:../../secret", "../secret", "", "sha256:"} {
		if _, err := s.Open(d); err == nil || errors.Is(err, fs.ErrNotExist) || s.Has(d) {
			t.Errorf("%q: %v", d, err)
		}
	}
	if _, err := s.Open(digestOf("nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent blob: %v", err)
	}
}

func TestLayers(t *testing.T) {
	below, belowDir := newStore(t)
	d := put(t, below, "on the ISO")
	before := entries(t, belowDir)
	s, dir := newStore(t, filepath.Join(t.TempDir(), "absent"), belowDir)
	if read(t, s, d) != "on the ISO" {
		t.Error("not read from below")
	}
	put(t, s, "on the ISO") // it is here already: not copied
	if n := len(entries(t, dir, "blobs", "sha256")); n != 0 {
		t.Errorf("%d blobs copied", n)
	}
	own := put(t, s, "own")
	if below.Has(own) || fmt.Sprint(entries(t, belowDir)) != fmt.Sprint(before) {
		t.Error("written below")
	}
	if _, err := Open(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, partial, "blob-1"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err != nil || len(entries(t, dir, partial)) != 0 {
		t.Errorf("after a crash: %v, left %v", err, entries(t, dir, partial))
	}
}

func TestPutAtOnce(t *testing.T) {
	s, _ := newStore(t)
	big := strings.Repeat("storm", 100_000)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, _, err := s.Put(context.Background(), strings.NewReader(big), digestOf(big)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if read(t, s, digestOf(big)) != big {
		t.Error("other bytes")
	}
}

// artifact puts a manifest with these layers and names it in the index.
func artifact(t *testing.T, s *Store, dir, ref string, layers ...v1.Descriptor) Digest {
	t.Helper()
	b, err := json.Marshal(v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Config: v1.DescriptorEmptyJSON, Layers: layers})
	if err != nil {
		t.Fatal(err)
	}
	d := put(t, s, string(b))
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []v1.Descriptor{{
		MediaType: v1.MediaTypeImageManifest, Digest: ocidigest.Digest(d), Size: int64(len(b)), Annotations: map[string]string{v1.AnnotationRefName: ref}}}}
	if b, err = json.Marshal(index); err == nil {
		err = os.WriteFile(filepath.Join(dir, "index.json"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func layer(title string, d Digest, size int64) v1.Descriptor {
	return v1.Descriptor{MediaType: "application/octet-stream", Digest: ocidigest.Digest(d), Size: size, Annotations: map[string]string{v1.AnnotationTitle: title}}
}

func TestArtifact(t *testing.T) {
	below, belowDir := newStore(t)
	kernel := put(t, below, "kernel")
	manifest := artifact(t, below, belowDir, "installer", layer("vmlinuz", kernel, 6), layer("initrd.img", digestOf("absent"), 9))
	s, dir := newStore(t, belowDir)
	d, files, err := s.Artifact("installer")
	if err != nil || d != manifest || len(files) != 2 || files[0].Name != "vmlinuz" || files[0].Digest != string(kernel) || files[0].Size != 6 {
		t.Fatalf("%s, %v, %v", d, files, err)
	}
	if !s.Has(kernel) || s.Has(Digest(files[1].Digest)) {
		t.Error("which files are here")
	}
	if _, _, err := s.Artifact("node"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent artifact: %v", err)
	}
	newer := artifact(t, s, dir, "installer", layer("vmlinuz", kernel, 6))
	if d, _, err := s.Artifact("installer"); err != nil || d != newer {
		t.Errorf("the writable layout's first: %s, %v", d, err)
	}
	if all, err := s.Index(); err != nil || len(all) != 2 {
		t.Errorf("indexes: %d, %v", len(all), err)
	}
}

func TestBadArtifacts(t *testing.T) {
	for name, layers := range map[string][]v1.Descriptor{
		"no title":      {layer("", digestOf("x"), 1)},
		"a path":        {layer("../x", digestOf("x"), 1)},
		"two of a name": {layer("x", digestOf("x"), 1), layer("x", digestOf("y"), 1)},
		"a digest":      {layer("x", "sha512:00", 1)},
		"a size":        {layer("x", digestOf("x"), -1)},
	} {
		s, dir := newStore(t)
		artifact(t, s, dir, "node", layers...)
		if _, files, err := s.Artifact("node"); err == nil {
			t.Errorf("%s: %v", name, files)
		}
	}
	s, dir := newStore(t)
	d := artifact(t, s, dir, "node")
	p, err := path(dir, d)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, bytes.Replace(b, []byte("2"), []byte("3"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Manifest(d); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged manifest: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), bytes.Repeat([]byte(" "), MaxDocument+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Index(); err == nil || !strings.Contains(err.Error(), "over") {
		t.Errorf("an endless index: %v", err)
	}
}

func TestContinue(t *testing.T) {
	_, dir := newStore(t)
	d := digestOf("hello")
	for n, piece := range []string{"hel", "", "lo"} { // each by a process of its own
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		parts, err := s.Parts()
		if err != nil || len(parts) != min(n, 1) {
			t.Errorf("parts: %v, %v", parts, err)
		}
		u, err := s.Continue(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		if want := []int64{0, 3, 3}[n]; u.Size() != want {
			t.Errorf("it goes on at %d, want %d", u.Size(), want)
		}
		if _, err := io.WriteString(u, piece); err != nil {
			t.Fatal(err)
		}
		if b := make([]byte, 3); n == 1 {
			if got, err := u.ReadAt(b, 0); err != nil || string(b) != "hel" {
				t.Errorf("read of the part: %d, %q, %v", got, b, err)
			}
		}
		if n < 2 {
			if err := u.Leave(); err != nil || s.Has(d) {
				t.Errorf("left: %v", err)
			}
			continue
		}
		if got, err := u.Commit(d); err != nil || got != d || read(t, s, d) != "hello" {
			t.Errorf("%s, %v", got, err)
		}
		if _, err := u.ReadAt(make([]byte, 1), 0); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("read of one that has ended: %v", err)
		}
		if left := entries(t, dir, partial); len(left) != 0 {
			t.Errorf("left aside: %v", left)
		}
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	u, err := s.Continue(t.Context(), digestOf("another"))
	if err == nil {
		err = errors.Join(u.Leave(), s.RemovePart(digestOf("another")), s.RemovePart(digestOf("another")))
	}
	if left := entries(t, dir, partial); err != nil || len(left) != 0 {
		t.Errorf("removed: %v, left %v", err, left)
	}
	if _, err := s.Continue(t.Context(), "sha256:../../x"); err == nil {
		t.Error("a path was continued")
	}
}
