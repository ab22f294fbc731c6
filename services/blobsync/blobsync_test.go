package blobsync

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/rackseed/rackseed/services/blob"
	"github.com/rackseed/rackseed/services/machine"
)

// others are replicas with blobs. sends changes what one sends.
type others struct {
	peers []string
	has   map[string]map[blob.Digest]string
	sends func(peer string, text string) io.Reader

	mu    sync.Mutex
	asked []string // "peer from"
}

func (o *others) Peers() []string { return o.peers }

func (o *others) Size(_ context.Context, peer string, d blob.Digest) (int64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if text, ok := o.has[peer][d]; ok {
		return int64(len(text)), nil
	}
	return 0, fs.ErrNotExist
}

func (o *others) Blob(_ context.Context, peer string, d blob.Digest, from int64) (io.ReadCloser, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	text, ok := o.has[peer][d]
	if !ok {
		return nil, fs.ErrNotExist
	}
	o.asked = append(o.asked, fmt.Sprint(peer, " ", from))
	if o.sends != nil {
		return io.NopCloser(o.sends(peer, text[from:])), nil
	}
	return io.NopCloser(strings.NewReader(text[from:])), nil
}

func digestOf(text string) blob.Digest {
	sum := sha256.Sum256([]byte(text))
	return blob.Digest("sha256:" + hex.EncodeToString(sum[:]))
}

func store(t *testing.T) *blob.Store {
	t.Helper()
	s, err := blob.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// image is a manifest with its blobs, by digest.
func image(t *testing.T, layers ...string) (machine.Image, map[blob.Digest]string) {
	t.Helper()
	blobs := map[blob.Digest]string{}
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	add := func(text string) v1.Descriptor {
		blobs[digestOf(text)] = text
		return v1.Descriptor{MediaType: "application/octet-stream", Digest: digest.Digest(digestOf(text)), Size: int64(len(text))}
	}
	m.Config = add("config of " + strings.Join(layers, ", "))
	for _, l := range layers {
		m.Layers = append(m.Layers, add(l))
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	blobs[digestOf(string(b))] = string(b)
	return machine.Image{Ref: "node", Digest: string(digestOf(string(b)))}, blobs
}

func loop(s *blob.Store, from *others, images ...machine.Image) *Loop {
	return &Loop{
		Blobs: s, Source: from, Logger: slog.New(slog.DiscardHandler),
		Images: func() ([]machine.Image, <-chan struct{}) { return images, nil },
	}
}

// What the images name comes, the manifests first, from whoever has it.
func TestEverythingComes(t *testing.T) {
	one, blobs := image(t, "root", "kernel")
	two, more := image(t, "kernel", "initrd")
	s := store(t)
	from := &others{peers: []string{"a", "b"}, has: map[string]map[blob.Digest]string{"a": blobs, "b": more}}
	l := loop(s, from, one, two)
	if l.Status().Counted {
		t.Error("it counted before it looked")
	}
	ctx, stop := context.WithCancel(t.Context())
	err := l.Run(ctx, func(ok bool, text string) {
		if ok {
			stop()
		}
	})
	if now := l.Status(); err != nil || !now.Counted || now.Missing != 0 {
		t.Errorf("%+v, %v", now, err)
	}
	for _, all := range []map[blob.Digest]string{blobs, more} {
		for d, text := range all {
			if !s.Has(d) {
				t.Errorf("%q is not here", text)
			}
		}
	}
	if len(from.asked) != len(blobs)+len(more)-1 {
		t.Errorf("%d blobs were asked for: %v", len(from.asked), from.asked)
	}
}

// waits tells when it is read, and sends nothing before it may.
type waits struct{ read, may chan struct{} }

func (w waits) Read([]byte) (int, error) {
	close(w.read)
	<-w.may
	return 0, io.EOF
}

// What is lacking falls as bytes come, not only with whole blobs.
func TestBytesAreCountedAsTheyCome(t *testing.T) {
	const layer = "0123456789"
	one, blobs := image(t, layer)
	w := waits{make(chan struct{}), make(chan struct{})}
	from := &others{peers: []string{"a"}, has: map[string]map[blob.Digest]string{"a": blobs}}
	from.sends = func(_, rest string) io.Reader {
		if rest == layer {
			return io.MultiReader(strings.NewReader(rest[:4]), w, strings.NewReader(rest[4:]))
		}
		return strings.NewReader(rest)
	}
	l := loop(store(t), from, one)
	for d, text := range blobs {
		if text != layer && l.Fetch(t.Context(), d) != nil {
			t.Fatalf("%q does not come", text)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- l.Run(ctx, func(ok bool, text string) {
			if ok {
				stop()
			}
		})
	}()
	<-w.read
	if now := l.Status(); now.Missing != 1 || now.Bytes != 6 {
		t.Errorf("of 10 bytes 4 came: %+v", now)
	}
	close(w.may)
	if err := <-ended; err != nil || l.Status() != (Status{Counted: true}) {
		t.Errorf("%+v, %v", l.Status(), err)
	}
}

// A transfer that breaks off goes on at another replica, from where it was.
func TestItGoesOnElsewhere(t *testing.T) {
	text := "0123456789"
	s := store(t)
	from := &others{peers: []string{"a", "b"}, has: map[string]map[blob.Digest]string{"a": {digestOf(text): text}, "b": {digestOf(text): text}}}
	from.sends = func(peer, rest string) io.Reader {
		if peer == "a" {
			return io.MultiReader(strings.NewReader(rest[:4]), iotest.ErrReader(errors.New("its cable is out")))
		}
		return strings.NewReader(rest)
	}
	if err := loop(s, from).Fetch(t.Context(), digestOf(text)); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(from.asked, ", "); got != "a 0, b 4" {
		t.Errorf("asked %s", got)
	}
	if !s.Has(digestOf(text)) {
		t.Error("it is not here")
	}
}

// Other bytes than were asked for are never kept.
func TestOtherBytes(t *testing.T) {
	text := "0123456789"
	s := store(t)
	from := &others{peers: []string{"a", "b"}, has: map[string]map[blob.Digest]string{"a": {digestOf(text): text}, "b": {digestOf(text): text}}}
	from.sends = func(peer, rest string) io.Reader {
		if peer == "a" {
			return strings.NewReader("x" + rest[1:])
		}
		return strings.NewReader(rest)
	}
	if err := loop(s, from).Fetch(t.Context(), digestOf(text)); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(from.asked, ", "); got != "a 0, b 0" {
		t.Errorf("asked %s", got)
	}
	from.peers = []string{"a"}
	if err := loop(store(t), from).Fetch(t.Context(), digestOf(text)); err == nil || !strings.Contains(err.Error(), "no other replica has it") {
		t.Errorf("only wrong bytes: %v", err)
	}
}

// Whoever wants a blob that is on its way waits for it.
func TestOnceForAll(t *testing.T) {
	text := "0123456789"
	s := store(t)
	from := &others{peers: []string{"a"}, has: map[string]map[blob.Digest]string{"a": {digestOf(text): text}}}
	l := loop(s, from)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := l.Fetch(t.Context(), digestOf(text)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(from.asked) != 1 {
		t.Errorf("asked %v", from.asked)
	}
}
