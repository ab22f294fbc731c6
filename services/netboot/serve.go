package netboot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/rackseed/rackseed/services/bounded"
)

// stopTime is what answers on their way get when the server stops.
const stopTime = 3 * time.Second

// Serve answers machines on l until ctx ends, and then returns nil. It closes
// l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		// Long polls end with ctx.
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.Logger.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(bounded.Listen(l, s.Limits.Conns, s.Limits.ConnsPerSource)) }()
	select {
	case err := <-failed:
		return fmt.Errorf("machines' HTTP server on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	if err := server.Shutdown(stop); err != nil {
		// Long transfers are cut; machines go on by Range.
		if err := server.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("machines' HTTP server on %s: %w", l.Addr(), err)
		}
	}
	<-failed
	return nil
}
