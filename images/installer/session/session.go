// Package session is the installer's life with the boot service: a session, and
// orders until one of them is carried out.
package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/rackseed/rackseed/images/installer/client"
	"github.com/rackseed/rackseed/images/installer/journal"
	"github.com/rackseed/rackseed/images/installer/report"
	"github.com/rackseed/rackseed/services/wire"
)

const (
	// poll is how long the service may keep a question without news.
	poll = 25 * time.Second
	// pace keeps answers that come at once from making a storm.
	pace = time.Second
	// watchEvery is how often a running install looks whether it still may.
	watchEvery = 10 * time.Second
	// farewell bounds the wait for the log's last lines before a restart.
	farewell = 15 * time.Second
)

var (
	// ErrRevoked ends a session: a newer one exists, or the intent was taken back.
	ErrRevoked = errors.New("revoked by the boot service")
	// ErrLeft ends a session that nobody approved in time, or that the boot
	// service has left alone.
	ErrLeft = errors.New("sent back to the machine's own disk")
)

// Rescue is the shell for operators.
type Rescue interface {
	// Serve lets these SSH keys log in, and no others, from now on.
	Serve(keys []string) error
	// Drain takes no more log-ins and waits until the last shell has ended.
	Drain()
}

// Session is what Run needs.
type Session struct {
	Client  *client.Client
	Request wire.SessionRequest
	Journal *journal.Journal
	Reports *report.Reporter
	Log     *slog.Logger
	// Install carries out one order and reports its steps but the last.
	Install func(context.Context, wire.Order) error
	Rescue  Rescue
	// Stay ends the context that Run gets where the boot service is gone; nil:
	// never.
	Stay *Stay

	pace time.Duration // of tests; 0 is the usual
}

// Run opens the session and follows orders until a machine is installed (nil),
// the session is revoked (ErrRevoked) or at its end (ErrLeft), or ctx ends,
// which its Stay may have it do (ErrLeft). A
// failed install stays here: it is told, and tried again under a higher epoch.
// Shells of a rescue end before the session does.
func (s *Session) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.open(ctx)
	if err != nil {
		return err
	}
	go s.Reports.Run(ctx, s.post, s.Log)
	stopLog := s.sendLog(ctx, stream)
	defer func() { stopLog() }()

	var tried attempt
	reason, rescuing := "", false
	// The first answer is wanted at once: it is what the screen says.
	var hold time.Duration
	for {
		order, err := s.Client.Order(ctx, hold)
		hold = poll
		if ctx.Err() != nil {
			return fmt.Errorf("following orders: %w", context.Cause(ctx))
		}
		if err != nil {
			if text := err.Error(); text != reason {
				s.Log.Warn("the boot service gives no orders; asking again", "error", err)
				reason = text
			}
			if unknown(err) {
				// It does not know this session (any more): introduce the
				// machine again. The same keys find the same session.
				again, err := s.open(ctx)
				if err != nil {
					return err
				}
				if again != stream {
					stopLog()
					s.Journal.Restart()
					stream, stopLog = again, s.sendLog(ctx, again)
				}
			}
			if err := sleep(ctx, s.pause()); err != nil {
				return err
			}
			continue
		}
		s.Stay.heard(order)
		switch decide(order, tried) {
		case stop:
			s.Log.Warn("this session is revoked", "reason", order.Reason)
			s.end(ctx, rescuing)
			return fmt.Errorf("%w: %s", ErrRevoked, order.Reason)
		case leave:
			s.Log.Info("this machine restarts to its own disk", "reason", order.Reason)
			s.end(ctx, rescuing)
			return fmt.Errorf("%w: %s", ErrLeft, order.Reason)
		case rescue:
			rescuing = true
			text := ""
			if err := s.Rescue.Serve(order.SSHKeys); err != nil {
				text = err.Error()
			}
			if text != reason && text != "" {
				s.Log.Error("there is no rescue shell; trying again", "error", text)
			}
			reason = text
			// The keys may be changed meanwhile.
			if err := sleep(ctx, s.each(watchEvery)); err != nil {
				return err
			}
		case install:
			tried = attempt{order.Intent, order.Epoch}
			reason = ""
			if err := s.carryOut(ctx, order); err == nil {
				s.flushLog(ctx)
				return nil
			} else if errors.Is(err, ErrRevoked) {
				s.flushLog(ctx)
				return err
			}
		case wait:
			if text := waiting(order); text != reason {
				s.Log.Info(text)
				reason = text
			}
			if err := sleep(ctx, s.pause()); err != nil {
				return err
			}
		}
	}
}

// waiting is what a machine that waits says on its screen.
func waiting(o wire.Order) string {
	text := "waiting: " + o.Reason
	if !o.Until.IsZero() {
		text += "; otherwise this machine goes back to its own disk at " + o.Until.UTC().Format("2006-01-02 15:04:05 MST")
	}
	return text
}

// end gives people in a rescue shell the time that they need, and the log its
// way.
func (s *Session) end(ctx context.Context, rescuing bool) {
	if rescuing {
		s.Log.Warn("the rescue shell takes no more log-ins; the machine restarts when the last one has ended")
		s.Rescue.Drain()
	}
	s.flushLog(ctx)
}

func (s *Session) pause() time.Duration { return s.each(pace) }

// each is a time between two rounds, which tests shorten.
func (s *Session) each(usual time.Duration) time.Duration {
	if s.pace > 0 {
		return s.pace
	}
	return usual
}

type action int

const (
	wait action = iota
	install
	stop
	leave
	rescue
)

// attempt is an install that ended, one way or the other.
type attempt struct {
	intent string
	epoch  uint64
}

// decide is what an order means after the last attempt. The same order again is
// not carried out twice: a failed install waits for a higher epoch.
func decide(o wire.Order, last attempt) action {
	switch o.Kind {
	case wire.OrderRevoked:
		return stop
	case wire.OrderLeave:
		return leave
	case wire.OrderRescue:
		return rescue
	case wire.OrderInstall:
		if o.Intent != "" && (o.Intent != last.intent || o.Epoch > last.epoch) {
			return install
		}
	}
	return wait
}

// superseded says whether a running install must stop because of a new order.
func superseded(running, now wire.Order) error {
	switch {
	case now.Kind == wire.OrderRevoked:
		return fmt.Errorf("%w: %s", ErrRevoked, now.Reason)
	case now.Kind == wire.OrderInstall && (now.Intent != running.Intent || now.Epoch != running.Epoch):
		return fmt.Errorf("another order came: intent %s, epoch %d", now.Intent, now.Epoch)
	}
	return nil
}

// carryOut runs an install, watching whether it still may, and tells the end.
func (s *Session) carryOut(ctx context.Context, order wire.Order) error {
	s.Log.Info("install ordered", "intent", order.Intent, "epoch", order.Epoch)
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watching := make(chan struct{})
	watch, stopWatch := context.WithCancel(running)
	go func() {
		defer close(watching)
		for sleep(watch, watchEvery) == nil {
			now, err := s.Client.Order(watch, 0)
			if err != nil {
				continue // the install itself notices a service that is away
			}
			if err := superseded(order, now); err != nil {
				cancel(err)
				return
			}
		}
	}()
	err := s.Install(running, order)
	stopWatch()
	<-watching
	if err != nil {
		if cause := context.Cause(running); errors.Is(cause, ErrRevoked) {
			s.Log.Warn("the install was stopped", "error", cause)
			return cause
		}
		return err
	}
	// A refusal of an earlier report was logged, and undoes nothing: only the
	// end's own answer counts.
	if err := s.Reports.Flush(ctx); err != nil && ctx.Err() != nil {
		return err
	}
	s.Reports.Add(wire.Report{Intent: order.Intent, Epoch: order.Epoch, Step: wire.StepReboot, Status: wire.StepDone, Text: "installed; restarting"})
	// Not before it is acknowledged: a machine whose install is not known to be
	// done would be sent into the installer again.
	if err := s.Reports.Flush(ctx); err != nil {
		s.Log.Error("the boot service did not take the install's end; waiting for new orders", "error", err)
		return err
	}
	return nil
}

func (s *Session) open(ctx context.Context) (string, error) {
	var reply wire.SessionReply
	never := func(error) bool { return false } // a closed discovery window may open; Stay ends it
	err := s.Client.Retry(ctx, "to be taken up by the boot service", never, func(ctx context.Context) (err error) {
		reply, err = s.Client.OpenSession(ctx, s.Request)
		s.Stay.asked(err)
		return err
	})
	if err == nil {
		s.Log.Info("the boot service knows this machine", "machine", reply.Machine, "session", reply.Session)
	}
	return reply.Session, err
}

func (s *Session) post(ctx context.Context, r wire.Report) error {
	return s.Client.Retry(ctx, "reporting "+r.Step, client.Permanent, func(ctx context.Context) error { return s.Client.Report(ctx, r) })
}

// sendLog sends the journal to a stream until the returned function is called.
func (s *Session) sendLog(ctx context.Context, stream string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Journal.Send(ctx, stream, s.Client.Output, s.Log)
	}()
	return func() { cancel(); <-done }
}

func (s *Session) flushLog(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	s.Journal.Flush(ctx)
}

// unknown says that the service does not know who asks.
func unknown(err error) bool {
	var status *client.StatusError
	return errors.As(err, &status) && (status.Status == http.StatusUnauthorized || status.Status == http.StatusForbidden || status.Status == http.StatusNotFound)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
