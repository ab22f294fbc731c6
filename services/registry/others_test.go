package registry

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/rackseed/rackseed/services/blob"
)

// elsewhereOnly is another replica, which has one blob.
type elsewhereOnly struct {
	own    func() *blob.Store
	has    string
	away   error             // of fetching
	full   error             // of keeping
	keeps  []blob.Digest     // images
	before func(blob.Digest) // it keeps one
}

func (e *elsewhereOnly) Open(_ context.Context, d blob.Digest) (blob.Content, error) {
	if f, err := e.own().Open(d); !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if string(d) != digestOf(e.has) {
		return nil, fs.ErrNotExist
	}
	return content{strings.NewReader(e.has)}, nil
}

type content struct{ *strings.Reader }

func (content) Close() error { return nil }

func (e *elsewhereOnly) Fetch(ctx context.Context, d blob.Digest) error {
	if string(d) != digestOf(e.has) {
		return fs.ErrNotExist
	}
	if e.away != nil {
		return e.away
	}
	_, _, err := e.own().Put(ctx, strings.NewReader(e.has), d)
	return err
}

func (e *elsewhereOnly) KeepImage(_ context.Context, manifest blob.Digest) error {
	e.before(manifest)
	if e.full == nil {
		e.keeps = append(e.keeps, manifest)
	}
	return e.full
}

// A push is acknowledged, and its tag committed, once another replica keeps the image.
func TestKeptElsewhere(t *testing.T) {
	r := newDiskRig(t, Limits{})
	e := &elsewhereOnly{own: func() *blob.Store { return r.blobs }, has: "a layer", full: errors.New("its disk is full"), away: errors.New("its cable is out")}
	e.before = func(d blob.Digest) {
		if _, published := r.store.View().Image("lab/app:v1"); published || !r.blobs.Has(d) {
			t.Errorf("published: %v; the manifest is here: %v", published, r.blobs.Has(d))
		}
	}
	r.others = e
	r.restart()
	r.push("lab/app", "{}")
	m := marshal(t, v1.Manifest{Versioned: versioned, MediaType: manifestType, Config: desc(v1.MediaTypeEmptyJSON, "{}"), Layers: []v1.Descriptor{desc("application/octet-stream", "a layer")}})
	put := func(status int, at string) (code, message string) {
		t.Helper()
		a := r.want(status, "PUT", "/v2/lab/app/manifests/"+at, m, withToken, header{"Content-Type": manifestType})
		if status == http.StatusCreated {
			return "", ""
		}
		return a.error(t)
	}
	// The client was told that the layer is there, and did not push it.
	r.want(http.StatusOK, "HEAD", "/v2/lab/app/blobs/"+digestOf("a layer"), "")
	if code, text := put(http.StatusServiceUnavailable, "v1"); code != codeUnavailable || !strings.Contains(text, "its cable is out") || !strings.Contains(text, "push it again") {
		t.Errorf("a layer that does not come: %s, %s", code, text)
	}
	e.away = nil
	if code, text := put(http.StatusServiceUnavailable, "v1"); code != codeUnavailable || !strings.Contains(text, "its disk is full") || !strings.Contains(text, "push it again") {
		t.Errorf("kept by nobody else: %s, %s", code, text)
	}
	if _, published := r.store.View().Image("lab/app:v1"); published {
		t.Error("it is published, and on one disk")
	}
	put(http.StatusCreated, digestOf(m)) // without a tag nothing names it
	e.full = nil
	put(http.StatusCreated, "v1")
	if i, ok := r.store.View().Image("lab/app:v1"); !ok || i.Digest != digestOf(m) || len(e.keeps) != 1 || string(e.keeps[0]) != digestOf(m) {
		t.Errorf("%v, %v; kept: %v", i, ok, e.keeps)
	}
	e.has = "another layer"
	r.want(http.StatusNotFound, "HEAD", "/v2/lab/app/blobs/"+digestOf("nobody's"), "")
}
