// Package netboot is the HTTP server for machines: what a machine boots next,
// the bytes that it boots, and what its installer and node agent ask for.
//
// It is plain HTTP on a network that is not trusted: requests that change
// anything are signed by a machine's key (services/wire), secrets are sealed to
// it, and every answer that binds was committed first. docs/interfaces.md has
// the paths.
package netboot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"path"
	"time"

	"github.com/rackseed/rackseed/services/bounded"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

const (
	pathBoot   = "/boot.ipxe"
	pathScript = "/boot/script"
	pathGRUB   = "/boot/grub"
	pathBlobs  = wire.PathBlob
)

// Store is what the server needs of the state.
type Store interface {
	Propose(ctx context.Context, by string, c state.Command) (state.Result, error)
	View() state.View
}

// Output stores a machine's output; events.Log does.
type Output interface {
	Append(ctx context.Context, of machine.ID, out wire.Output) (next uint64, err error)
}

// Config is what a server is made of. All but JoinSecret, Invite, URL and Limits are
// needed.
type Config struct {
	Store  Store
	Blobs  Blobs
	Output Output
	// Ignition assembles a machine's Ignition, in the clear.
	Ignition func(view state.View, m machine.Machine) ([]byte, error)
	// JoinSecret makes what a machine joins the cluster by, under its join
	// intent, which is claimed; nil: no node joins.
	JoinSecret func(ctx context.Context, view state.View, m machine.Machine, intent machine.Intent) (wire.JoinSecret, error)
	// Invite invites a node's replica of the boot service; nil: none joins.
	Invite func(ctx context.Context, view state.View, m machine.Machine) (wire.ReplicaSecret, error)
	// URL is how machines reach this server, without a slash at the end;
	// empty: the site's service address, port 80.
	URL    string
	Limits Limits
	Now    func() time.Time
	Logger *slog.Logger
}

// Server serves machines. It is an http.Handler; Serve runs it on a listener.
type Server struct {
	Config
	firmware  *Firmware
	rates     *rates
	transfers chan struct{}   // one for each blob on its way
	receivers *bounded.Places // the same by source; its sum is not what is bounded
	bodies    chan struct{}   // one for each body being read
	senders   *bounded.Places // the same by source, as receivers
	handler   http.Handler
}

// New makes a server.
func New(c Config) *Server {
	c.Limits = c.Limits.filled()
	s := &Server{
		Config: c, rates: newRates(c.Limits), firmware: NewFirmware(c),
		transfers: make(chan struct{}, c.Limits.Transfers),
		receivers: bounded.NewPlaces(math.MaxInt, c.Limits.TransfersPerSource),
		bodies:    make(chan struct{}, c.Limits.Bodies),
		senders:   bounded.NewPlaces(math.MaxInt, c.Limits.BodiesPerSource),
	}
	mux := http.NewServeMux()
	// The cost is what a request takes of its source's allowance: those that
	// anyone can make and that write to the log cost most.
	handle := func(pattern string, cost float64, limit time.Duration, h func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if !s.rates.take(bounded.Source(r.RemoteAddr), cost, s.Now()) {
				w.Header().Set("Retry-After", "1")
				s.fail(w, r, status(http.StatusTooManyRequests, errors.New("too many requests from this address: ask again in a second")))
				return
			}
			deadline(w, limit)
			if err := h(w, r); err != nil {
				s.fail(w, r, err)
			}
		})
	}
	const short, poll = 30 * time.Second, longestWait + 30*time.Second
	handle("GET "+pathBoot, 1, short, s.serveBoot)
	handle("GET "+pathScript, scriptCost, short, s.serveScript(ipxe{}))
	handle("GET "+pathGRUB, scriptCost, short, s.serveScript(grub{}))
	handle("GET "+pathUEFI+"{name}", 1, short, s.serveFirmware)
	handle("GET /"+grubConfigName, 1, short, s.serveFirmware)
	handle("GET "+pathBlobs+"{digest}", 1, short, s.serveBlob)
	handle("GET "+pathBlobs+"{digest}/{name}", 1, short, s.serveBlob)
	handle("GET "+wire.PathTime, 1, short, s.serveTime)
	handle("POST "+wire.PathSession, 20, short, s.serveSession)
	handle("GET "+wire.PathOrder, 1, poll, s.installerOnly(maxSmall, s.serveOrder))
	handle("POST "+wire.PathClaim, 1, short, s.installerOnly(maxSmall, s.serveClaim))
	handle("POST "+wire.PathReport, 1, short, s.installerOnly(maxSmall, s.serveReport))
	handle("GET "+wire.PathIgnition, 5, short, s.installerOnly(maxSmall, s.serveIgnition))
	handle("POST "+wire.PathOutput, 1, short, s.signed(wire.MaxBody, s.serveOutput))
	handle("POST "+wire.PathNodeReport, 1, short, s.nodeOnly(maxSmall, s.serveNodeReport))
	handle("GET "+wire.PathNodeOrder, 1, poll, s.nodeOnly(maxSmall, s.serveNodeOrder))
	handle("POST "+wire.PathNodeJoin, 10, short, s.nodeOnly(maxSmall, s.serveNodeJoin))
	handle("GET "+wire.PathNodeReplica, 1, short, s.nodeOnly(maxSmall, s.serveNodeReplica))
	handle("POST "+wire.PathNodeReplica, 10, short, s.nodeOnly(maxSmall, s.serveNodeInvite))
	handle("GET "+wire.PathNodeAccess, 1, short, s.nodeOnly(maxSmall, s.serveNodeAccess))
	handle("/", 1, short, func(w http.ResponseWriter, r *http.Request) error {
		return status(http.StatusNotFound, fmt.Errorf("there is nothing for %s at %s", r.Method, r.URL.Path))
	})
	s.handler = mux
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Firmware asks for //names; ServeMux would redirect, which it does not
	// follow. A signed request that is changed so has a wrong signature.
	if clean := path.Clean(r.URL.Path); clean != r.URL.Path && r.URL.Path != "" {
		r.URL.Path, r.URL.RawPath = clean, ""
	}
	s.handler.ServeHTTP(w, r)
}

var errNoSite = errors.New("there is no valid site file yet, so no machine is served: mend it first")

// base is the server's URL for machines.
func (c Config) base(v state.View) (string, error) {
	if c.URL != "" {
		return c.URL, nil
	}
	site, ok := v.Site()
	if !ok {
		return "", status(http.StatusServiceUnavailable, errNoSite)
	}
	return wire.ServiceURL(site.ServiceAddress), nil
}

func (s *Server) serveTime(w http.ResponseWriter, r *http.Request) error {
	return writeJSON(w, wire.Time{Now: s.Now().UTC()})
}

func writeScript(w http.ResponseWriter, script string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte(script)) // the machine is gone: it asks again
}
