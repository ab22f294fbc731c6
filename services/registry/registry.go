// Package registry is the OCI distribution API
// (https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md) over
// the blob store: node images, kernels and container images are artifacts in
// it, for crane, oras, containerd and other replicas alike. The protocol is
// ociserver's; this is what it stands on.
//
// Blobs and manifests are files of the store, shared by all repositories: who
// knows a digest may read it under any name, as on the machines' own server. A
// tag is a published image of the state, committed before a push is answered.
//
// Reading needs no credentials, since nodes have none: nothing in an image is a
// secret. Pushing needs an operator.
package registry

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociref"
	"cuelabs.dev/go/oci/ociregistry/ociserver"

	"github.com/rackseed/rackseed/services/blob"
	"github.com/rackseed/rackseed/services/bounded"
	"github.com/rackseed/rackseed/services/state"
)

// Path is where the registry is served, and all below it.
const Path = "/v2/"

// Store is what the registry needs of the state.
type Store interface {
	Propose(ctx context.Context, by string, c state.Command) (state.Result, error)
	View() state.View
}

// Others have the same images.
type Others interface {
	// Open opens a blob that is here or that another replica sends, for who asks
	// with ctx; the error wraps fs.ErrNotExist if none has it.
	Open(ctx context.Context, d blob.Digest) (blob.Content, error)
	// Fetch brings a blob here.
	Fetch(ctx context.Context, d blob.Digest) error
	// KeepImage has another voter keep all of an image; nil also where there is no
	// other one.
	KeepImage(ctx context.Context, manifest blob.Digest) error
}

// Config is what a registry is made of. Everything but Others and Limits is needed.
type Config struct {
	Store Store
	Blobs *blob.Store
	// Others are the other replicas; nil: there are none.
	Others Others
	// TokenOwner says whose API token this is.
	TokenOwner func(token string) (name string, ok bool)
	// CheckPassword says whether it is the user's, and bounds what guesses
	// cost. Its error may have GetStatus() int and GetHeaders() http.Header.
	CheckPassword func(r *http.Request, name, password string) error
	// PushService lets people push the boot service's own image: where it runs on
	// nodes, no stick brings the next one.
	PushService bool
	Limits      Limits
	Logger      *slog.Logger
	Now         func() time.Time
}

// Limits bound what pushing and pulling take. Zero fields have the defaults.
type Limits struct {
	MaxBlob  int64         // bytes of one blob; 20 GiB
	KeepFree int64         // bytes of the data partition that pushes leave free; 1 GiB
	Uploads  int           // blobs on their way at once; 32
	Idle     time.Duration // how long an upload may stand still before it is removed; 15m
	Tags     int           // published images; 10000
	// Requests are those at once, RequestsPerSource those of one address; 1024
	// and 32. containerd fetches three layers at once, crane pushes four.
	Requests, RequestsPerSource int
}

func (l Limits) filled() Limits {
	fill := func(v *int, to int) {
		if *v == 0 {
			*v = to
		}
	}
	fill(&l.Uploads, 32)
	fill(&l.Tags, 10_000)
	fill(&l.Requests, 1024)
	fill(&l.RequestsPerSource, 32)
	if l.MaxBlob == 0 {
		l.MaxBlob = 20 << 30
	}
	if l.KeepFree == 0 {
		l.KeepFree = 1 << 30
	}
	if l.Idle == 0 {
		l.Idle = 15 * time.Minute
	}
	return l
}

// pace is slow: people push over bad lines, too.
var pace = bounded.Pace{Stall: time.Minute, Slowest: 16 << 10, Grace: time.Minute}

// Registry serves the API.
type Registry struct {
	Config
	places   *bounded.Places
	uploads  *uploads
	sessions *sessions
	protocol http.Handler
}

// New makes a registry, which serves Path and all below it.
func New(c Config) *Registry {
	c.Limits = c.Limits.filled()
	g := &Registry{
		Config:   c,
		places:   bounded.NewPlaces(c.Limits.Requests, c.Limits.RequestsPerSource),
		uploads:  &uploads{limits: c.Limits, blobs: c.Blobs, log: c.Logger, all: map[string]*upload{}},
		sessions: newSessions(),
	}
	g.protocol = ociserver.New(&backend{Config: g.Config, uploads: g.uploads, reading: make(chan struct{}, maxReading)}, &ociserver.Options{
		WriteError: g.writeError,
		// Clients then keep an artifact's referrers under a tag of their own
		// (distribution-spec, "Referrers Tag Schema").
		DisableReferrersAPI: true,
	})
	return g
}

func (g *Registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Docker-Distribution-API-Version", "registry/2.0")
	// What is pushed is anybody's, and this is the console's origin, too.
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")

	w = &answer{pace.Answer(w)}
	from := bounded.Source(r.RemoteAddr)
	if !g.places.Enter(from) {
		h.Set("Connection", "close") // to leave it to who is served
		g.writeError(w, r, tooMany("too many requests at once: try again in %v", retryAfter))
		return
	}
	defer g.places.Leave(from)
	// The server's own limits are for requests that fit into a minute.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(pace.Stall))
	_ = control.SetWriteDeadline(time.Time{}) // set by each write
	r.Body = pace.Body(w, r.Body)

	if r.URL.Path == tokenPath {
		g.serveToken(w, r)
		return
	}
	who, err := g.identify(r)
	if err == nil {
		err = admit(r, who)
	}
	if err != nil {
		g.challenge(w, r, err)
		return
	}
	if err := g.adapt(r); err != nil {
		g.writeError(w, r, err)
		return
	}
	g.protocol.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), whoKey{}, who)))
}

type whoKey struct{}

// oneRange is the only form of range that the library reads; it refuses others,
// which should rather be answered with all there is (RFC 9110 §14.2).
var oneRange = regexp.MustCompile(`^bytes=[0-9]+-[0-9]*$`)

// adapt makes of a request what the library handles well.
func (g *Registry) adapt(r *http.Request) error {
	if !oneRange.MatchString(r.Header.Get("Range")) {
		r.Header.Del("Range")
	}
	switch {
	case r.Method == http.MethodPut && strings.HasSuffix(path.Dir(r.URL.Path), "/manifests"):
		if last := path.Base(r.URL.Path); strings.Contains(last, ":") && !ociref.IsValidDigest(last) {
			return refuse(http.StatusBadRequest, ociregistry.ErrDigestInvalid, "%.80q is neither a tag nor a digest", last)
		}
		// It reads all of a manifest, however large.
		b, err := io.ReadAll(io.LimitReader(r.Body, blob.MaxDocument+1))
		if err != nil {
			return refuse(http.StatusBadRequest, ociregistry.ErrManifestInvalid, "manifest: it broke off after %d bytes: %v", len(b), err)
		}
		if len(b) > blob.MaxDocument {
			return refuse(http.StatusRequestEntityTooLarge, ociregistry.ErrManifestInvalid, "manifest: it has over %d MiB", blob.MaxDocument>>20)
		}
		if _, err := parseManifest(b, r.Header.Get("Content-Type")); err != nil {
			return err // its own parsing ends with status 500
		}
		r.Body = io.NopCloser(bytes.NewReader(b))
	case r.Method == http.MethodPost && r.URL.Query().Has("mount"):
		// A blob that is not here to be mounted is uploaded (end-11), which it
		// answers with an error.
		r.URL.RawQuery = g.mount(r.URL.Query(), repositoryOf(r.URL.Path)).Encode()
	}
	return nil
}

// mount is the query of a request to mount a blob, or to upload it where it is
// not here. Blobs are shared: where it would come from does not matter.
func (g *Registry) mount(q url.Values, repo string) url.Values {
	d, err := blob.Parse(q.Get("mount"))
	if err == nil && g.Blobs.Has(d) {
		q.Set("from", repo)
		return q
	}
	return url.Values{}
}

// repositoryOf is the repository of a path; empty for one without.
func repositoryOf(path string) string {
	path = strings.TrimPrefix(path, Path)
	end := 0
	for _, part := range []string{"/blobs/", "/manifests/", "/tags/", "/referrers/"} {
		end = max(end, strings.LastIndex(path, part))
	}
	return path[:end]
}

// answer hides from a client that a subject was understood, as the library
// says: without a referrers API the client has to keep the list.
type answer struct{ http.ResponseWriter }

func (a *answer) WriteHeader(status int) {
	a.Header().Del("OCI-Subject")
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
