package replica

import (
	"context"
	"crypto/tls"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/bounded"
	"github.com/rackseed/rackseed/services/setup"
	"github.com/rackseed/rackseed/services/state"
)

// serveConsole serves people: the API and the console's files, over TLS.
func (r *replica) serveConsole(ctx context.Context, tell report) error {
	return r.serveConsoleOn(ctx, tell, r.HTTPS, func(a net.Addr, view state.View, print string) {
		r.setConsole(a)
		if a != nil {
			r.invite(view, print)
		}
	})
}

// serveConsoleAt serves people at one more address.
func (r *replica) serveConsoleAt(ctx context.Context, tell report, at string) error {
	return r.serveConsoleOn(ctx, tell, at, func(net.Addr, state.View, string) {})
}

// serveConsoleOn serves people at an address; listening is told that it is, and
// with nil that it is no more.
func (r *replica) serveConsoleOn(ctx context.Context, tell report, at string, listening func(a net.Addr, view state.View, print string)) error {
	store := r.store.Load()
	pair, print, err := consoleCertificate(store.View())
	if err != nil {
		return err
	}
	handler, err := r.api()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	listening(l.Addr(), store.View(), print)
	defer listening(nil, store.View(), "")
	tell(true, "served on "+l.Addr().String())
	server := &http.Server{
		Handler: r.withRegistry(handler), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: 5 * time.Minute,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		// A handshake that fails, as by a browser that does not know the
		// certificate, is not worth more.
		ErrorLog: slog.NewLogLogger(r.Logger.Handler(), slog.LevelDebug),
	}
	// Below TLS: a handshake is what costs.
	l = bounded.Listen(l, peopleConns, peopleConnsPerSource)
	return serve(ctx, server, tls.NewListener(l, &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"},
	}))
}

// newAPI makes the API and the console, once: who fails to log in is counted in it.
func (r *replica) newAPI() (*api.Server, error) {
	store := r.store.Load()
	var files fs.FS
	if r.Console != "" {
		if _, err := os.Stat(r.Console); err != nil {
			return nil, fmt.Errorf("the console's files: %w", err)
		}
		files = os.DirFS(r.Console)
	}
	return api.New(api.Config{
		Store: store, Output: r.log, Kubeconfig: r.kubeconfig, Console: files, Logger: r.Logger, Now: r.now,
		Members: store, HandoffStatus: r.handoffStatus, RolloutStatus: r.rolloutStatus,
		Status: r.peopleStatus, Files: r.imageFiles, NewPKI: r.Plugins.Secrets, Log: r.Log, Setup: r.setup(),
		CheckProfile: r.Plugins.CheckProfile, RemoveReplica: r.remove, SiteByHand: r.onNode(),
	})
}

// setup is what sets a site up in the console; nil where nothing does.
func (r *replica) setup() *setup.Service {
	if r.Links == nil || r.onNode() {
		return nil
	}
	return &setup.Service{Files: r.siteFiles(), List: r.Links}
}

// invite tells whoever started a replica by hand how to come in.
func (r *replica) invite(view state.View, print string) {
	if !r.Dev {
		return
	}
	s := r.status()
	fmt.Fprintf(r.Out, "Console:      %s\nFingerprint:  %s\n", first(s.ConsoleURLs), print)
	if s.SetupCode != "" {
		fmt.Fprintf(r.Out, "Setup code:   %s\n", s.SetupCode)
	}
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// kubeconfig makes an administrator's kubeconfig for who.
func (r *replica) kubeconfig(view state.View, who, server string) ([]byte, error) {
	site, ok := view.Site()
	if !ok {
		return nil, errNoSite
	}
	if r.Plugins.Kubeconfig == nil {
		return nil, fmt.Errorf("this boot service was built without Kubernetes")
	}
	return r.Plugins.Kubeconfig(view.Secret, site.ClusterName(), server, who, r.now())
}
