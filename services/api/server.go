package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/rackseed/rackseed/services/bounded"
	"github.com/rackseed/rackseed/services/handoff"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/rollout"
	"github.com/rackseed/rackseed/services/setup"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/support"
	"github.com/rackseed/rackseed/services/wire"
)

// proposeTimeout bounds how long a person waits for a commit.
const proposeTimeout = 10 * time.Second

// Store is what the API needs of the state.
type Store interface {
	// Export writes a backup of the state, and answers its newest entry.
	Export(to io.Writer) (uint64, error)
	Propose(ctx context.Context, by string, c state.Command) (state.Result, error)
	View() state.View
}

// Output reads the lines of a machine's chunk of output.
type Output interface {
	Read(ctx context.Context, c machine.Chunk) ([]string, error)
}

// Config is what the API is made of. What may be nil says so.
type Config struct {
	Store  Store
	Output Output
	// Kubeconfig makes an administrator's kubeconfig for a person. server is
	// the API server's URL.
	Kubeconfig func(view state.View, who, server string) ([]byte, error)
	// NewPKI makes the keys of a cluster that is begun anew, for
	// state.BootstrapAbandon: secrets by name, all of them below "pki/". nil:
	// no cluster can be abandoned.
	NewPKI func(now time.Time) (map[string][]byte, error)
	// Files lists the files of an image by its manifest's digest. nil: images
	// are listed without.
	Files  func(manifest string) ([]wire.File, error)
	Status func() Status
	// CheckProfile says what is wrong with what a profile gives its nodes in
	// Kubernetes; nil: that is not looked at.
	CheckProfile func(machine.Profile) error
	// Members tells Raft's configuration, and HandoffStatus how far the plan is
	// that this replica carries out; nil: neither is known here.
	Members       Members
	HandoffStatus func() handoff.Status
	// RolloutStatus is how far the rollout is that this replica carries out; nil: it
	// is not known here.
	RolloutStatus func() rollout.Status
	// RemoveReplica takes a replica out of Raft's configuration; nil: there are none.
	RemoveReplica func(ctx context.Context, id string) error
	// SiteByHand says that a site is applied by people, since no file is watched.
	SiteByHand bool
	// Setup makes a site file where there is none. nil: it is not set up here.
	Setup   *setup.Service
	Log     *support.Ring // the replica's log, for support bundles; nil: none
	Console fs.FS         // the console's files; nil: none
	Logger  *slog.Logger
	Now     func() time.Time
}

// Server serves the API and the console's files.
type Server struct {
	Config
	attempts *limiter
	refused  *bounded.Repeat // who was not let in, as far as it was told
	hashing  chan struct{}
	readings readings
	streams  chan struct{}
	timing   timing
	handler  http.Handler
	openapi  []byte
}

// New makes a server; Handler serves it.
func New(c Config) (*Server, error) {
	s := &Server{
		Config: c, attempts: newLimiter(), refused: &bounded.Repeat{Pause: 10 * time.Minute, Most: 64}, timing: defaultTiming,
		hashing: make(chan struct{}, 2), streams: make(chan struct{}, maxStreams),
	}
	routes := http.NewServeMux()
	spec, err := json.MarshalIndent(s.register(routes).OpenAPI(), "", "  ")
	if err != nil {
		return nil, err
	}
	s.openapi = append(spec, '\n')

	mux := http.NewServeMux()
	mux.Handle("/api/", http.NewCrossOriginProtection().Handler(s.guard(routes)))
	mux.Handle("/", console(c.Console))
	s.handler = headers(s.authority(mux))
	return s, nil
}

// HeaderAuthority is in every answer: who leads the cluster, as far as the replica that
// answers knows, as GENERATION/EPOCH/LEADER. A copy of an old stick reads from it that
// its cluster is served by another one.
const HeaderAuthority = "Rackseed-Authority"

func (s *Server) authority(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.Store != nil {
			view := s.Store.View()
			if c, created := view.Cluster(); created {
				w.Header().Set(HeaderAuthority, fmt.Sprintf("%d/%d/%s", c.Generation, c.Epoch, view.Leader()))
			}
		}
		next.ServeHTTP(w, r)
	})
}

// Handler serves the API below /api/ and the console below /.
func (s *Server) Handler() http.Handler { return s.handler }

// Spec is the OpenAPI document of the API, as docs/openapi.json.
func Spec() ([]byte, error) {
	s, err := New(Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	return s.openapi, nil
}

// register puts every route on mux.
func (s *Server) register(mux *http.ServeMux) huma.API {
	huma.DefaultArrayNullable = false // an empty list is [], never null
	config := huma.DefaultConfig("Rackseed", "1")
	config.Info.Description = "The people's API of the boot service."
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", ""
	config.CreateHooks = nil // no $schema in every answer
	config.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", schemaName)
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"bearer": {Type: "http", Scheme: "bearer"},
		"cookie": {Type: "apiKey", In: "cookie", Name: CookieName},
	}
	api := humago.New(mux, config)
	s.registerSession(api)
	s.registerReads(api)
	s.registerDiscovery(api)
	s.registerCluster(api)
	s.registerRecoveryKey(api)
	s.registerBackup(api)
	s.registerHandoff(api)
	s.registerService(api)
	s.registerSupport(api)
	s.registerSetup(api)
	s.registerMachines(api)
	s.registerStreams(api, mux)
	mux.HandleFunc("GET /api/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		write(w, s.openapi)
	})
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, http.StatusNotFound, "there is no "+r.Method+" "+r.URL.Path+"; /api/openapi.json names everything there is")
	})
	return api
}

// operation describes a route that needs a token.
func operation(id, method, path, tag, summary string, errors ...int) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: path, Tags: []string{tag}, Summary: summary,
		Errors:   append([]int{http.StatusUnauthorized}, errors...),
		Security: []map[string][]string{{"bearer": {}}, {"cookie": {}}},
	}
}

// propose commits a command in the name of the person who asks. Its errors are
// ready to be answered with.
func (s *Server) propose(ctx context.Context, c state.Command) (state.Result, error) {
	if asker(ctx).reads { // one may lead by now
		return state.Result{}, huma.Error503ServiceUnavailable(errReads.Error())
	}
	r, err := s.proposeAs(ctx, asker(ctx).by(), c)
	if err != nil {
		return state.Result{}, s.problem(ctx, err)
	}
	return r, nil
}

func (s *Server) proposeAs(ctx context.Context, by string, c state.Command) (state.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	return s.Store.Propose(ctx, by, c)
}

// problem turns an error of the state into an answer.
func (s *Server) problem(ctx context.Context, err error) error {
	var refusal *state.Refusal
	switch {
	case errors.As(err, &refusal):
		return huma.Error409Conflict(refusal.Error())
	case errors.Is(err, state.ErrUnwritable):
		return huma.Error503ServiceUnavailable("nothing is committed: " + err.Error() + "; free space, or replace the stick or disk, and try again")
	case errors.Is(err, context.DeadlineExceeded):
		return huma.Error503ServiceUnavailable("the boot service could not commit within " + proposeTimeout.String() +
			" and does not know whether it will; look at the machine's events before trying again")
	case ctx.Err() != nil:
		return ctx.Err()
	}
	s.Logger.Error("api: commit failed", "by", asker(ctx).by(), "error", err)
	return huma.Error503ServiceUnavailable("it is not known whether this was committed; look at the events before trying again: " + err.Error())
}

// writeProblem answers as huma does (RFC 9457), where huma does not come to it.
func writeProblem(w http.ResponseWriter, status int, text string) {
	body, err := json.Marshal(huma.ErrorModel{Title: http.StatusText(status), Status: status, Detail: text})
	if err != nil {
		http.Error(w, text, status)
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(status)
	write(w, body)
}

// write sends an answer's body. That the client went away while it was sent
// concerns nobody.
func write(w http.ResponseWriter, body []byte) { _, _ = w.Write(body) }
