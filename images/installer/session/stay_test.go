package session

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rackseed/rackseed/images/installer/client"
	"github.com/rackseed/rackseed/images/installer/journal"
	"github.com/rackseed/rackseed/images/installer/report"
	"github.com/rackseed/rackseed/services/wire"
)

func TestWhenItLeaves(t *testing.T) {
	began := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return began.Add(d) }
	const never = -1
	for name, c := range map[string]struct {
		facts facts
		want  time.Duration // after began
	}{
		"nobody was heard":                       {facts{discovery: true}, 45 * time.Minute},
		"it was sent to install":                 {facts{}, never},
		"it waits for approval":                  {facts{discovery: true, answered: true, until: at(time.Hour)}, 65 * time.Minute},
		"it waits, and was sent to install":      {facts{answered: true, until: at(time.Hour)}, never},
		"it waits without an end":                {facts{discovery: true, answered: true}, never},
		"it was ordered something":               {facts{discovery: true, answered: true, ordered: true, until: at(time.Hour)}, never},
		"it is refused":                          {facts{discovery: true, refused: at(2 * time.Minute)}, 7 * time.Minute},
		"it is refused, and was sent to install": {facts{refused: at(2 * time.Minute)}, 7 * time.Minute},
		"it is refused after it had waited":      {facts{discovery: true, answered: true, until: at(time.Hour), refused: at(2 * time.Minute)}, 7 * time.Minute},
		"it is refused after an order":           {facts{discovery: true, answered: true, ordered: true, refused: at(2 * time.Minute)}, never},
	} {
		c.facts.began = began
		got, why := c.facts.leave()
		if c.want == never && (!got.IsZero() || why != "") || c.want != never && (!got.Equal(at(c.want)) || why == "") {
			t.Errorf("%s: %s (%q), want %s", name, got, why, c.want)
		}
	}
}

// away is what a request gets that nobody answers.
var away = errors.New("no route to host")

// spoken is a transport to a boot service that answers by its clock.
type spoken struct {
	began   time.Time
	session func(since time.Duration) any // wire.SessionReply, an HTTP status, or away
	order   func(since time.Duration) any // wire.Order, or the same
}

func (s spoken) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	_, _ = io.Copy(io.Discard, r.Body)
	var answer any = http.StatusNoContent // reports
	switch r.URL.Path {
	case wire.PathSession:
		answer = s.session(time.Since(s.began))
	case wire.PathOrder:
		answer = s.order(time.Since(s.began))
	case wire.PathOutput:
		answer = away
	}
	switch a := answer.(type) {
	case error:
		return nil, a
	case int:
		w.WriteHeader(a)
		if a >= 400 {
			_, _ = io.WriteString(w, `{"error":"it boots its own disk, and no installer"}`)
		}
	default:
		if err := json.NewEncoder(w).Encode(a); err != nil {
			return nil, err
		}
	}
	return w.Result(), nil
}

// A machine that is only looked at goes back to its own disk when the boot
// service is gone, in time and not before; one that was ordered anything stays.
func TestTheBootServiceIsGone(t *testing.T) {
	open := func(time.Duration) any { return wire.SessionReply{Session: "s-1", Machine: "m-1"} }
	gone := func(time.Duration) any { return away }
	status := func(code int, till time.Duration, then func(time.Duration) any) func(time.Duration) any {
		return func(since time.Duration) any {
			if since < till {
				return code
			}
			return then(since)
		}
	}
	// orders are given for so long, then nobody answers.
	orders := func(till time.Duration, list ...wire.Order) func(time.Duration) any {
		return func(since time.Duration) any {
			if since >= till {
				return away
			}
			next := list[0]
			if len(list) > 1 {
				list = list[1:]
			}
			return next
		}
	}
	install := wire.Order{Kind: wire.OrderInstall, Intent: "i-1", Epoch: 1}
	rescue := wire.Order{Kind: wire.OrderRescue, Intent: "r-1"}
	endless := wire.Order{Kind: wire.OrderWait, Reason: "the node image is not available"}
	const stays = 0
	for name, c := range map[string]struct {
		discovery bool
		session   func(time.Duration) any
		orders    func(until time.Time) func(time.Duration) any
		want      time.Duration // when it leaves
		why       string
	}{
		"it was never there":                    {true, gone, nil, 45 * time.Minute, "no boot service has told it"},
		"it was never there for an install":     {false, gone, nil, stays, ""},
		"it goes while the machine waits":       {true, open, func(u time.Time) func(time.Duration) any { return orders(10*time.Minute, waitUntil(u)) }, 35 * time.Minute, "the boot service does not answer any more"},
		"it is there, and has it wait for long": {true, open, func(u time.Time) func(time.Duration) any { return orders(90*time.Minute, waitUntil(u.Add(time.Hour))) }, 95 * time.Minute, "does not answer"},
		"it goes after the approval":            {true, open, func(u time.Time) func(time.Duration) any { return orders(10*time.Minute, waitUntil(u), endless) }, stays, ""},
		"it goes after an order to install": {true, open, func(u time.Time) func(time.Duration) any {
			return orders(10*time.Minute, waitUntil(u), install, waitUntil(u))
		}, stays, ""},
		"it goes after an order to rescue":    {true, open, func(u time.Time) func(time.Duration) any { return orders(10*time.Minute, rescue) }, stays, ""},
		"it refuses a session":                {true, status(409, 24*time.Hour, open), nil, 5 * time.Minute, "refused it a session: the boot service answers 409: it boots its own disk"},
		"it refuses a session for an install": {false, status(409, 24*time.Hour, open), nil, 5 * time.Minute, "refused it a session"},
		"it refuses a session for a while":    {true, status(409, 4*time.Minute, open), func(u time.Time) func(time.Duration) any { return orders(time.Hour, waitUntil(u)) }, 35 * time.Minute, "does not answer any more"},
		"it has no leader":                    {true, status(503, 24*time.Hour, open), nil, 45 * time.Minute, "no boot service has told it"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				const asked = 2 * time.Hour // that long is watched what it does
				outer, cancel := context.WithTimeout(t.Context(), asked)
				defer cancel()
				ctx, stay := NewStay(outer, c.discovery)
				sign, seal, err := wire.NewKeys()
				if err != nil {
					t.Fatal(err)
				}
				transport := spoken{began: began, session: c.session, order: func(time.Duration) any { return away }}
				if c.orders != nil {
					transport.order = c.orders(began.Add(30 * time.Minute))
				}
				log := slog.New(slog.DiscardHandler)
				s := &Session{
					Client:  client.New("http://192.0.2.1", sign, log).Over(transport),
					Request: wire.SessionRequest{SignKey: sign[32:], SealKey: seal.PublicKey().Bytes()},
					Journal: journal.New(journal.Limit), Reports: report.New(), Log: log, Stay: stay, Rescue: &shell{}, pace: 10 * time.Second,
					Install: func(context.Context, wire.Order) error { return errors.New("no disk") },
				}
				err = s.Run(ctx)
				took := time.Since(began).Truncate(time.Second)
				if c.want == stays {
					if errors.Is(err, ErrLeft) || took != asked {
						t.Errorf("after %s: %v", took, err)
					}
					return
				}
				if !errors.Is(err, ErrLeft) || !strings.Contains(err.Error(), c.why) || took != c.want {
					t.Errorf("after %s: %v, want %q after %s", took, err, c.why, c.want)
				}
			})
		})
	}
}

func waitUntil(t time.Time) wire.Order {
	return wire.Order{Kind: wire.OrderWait, Reason: "waiting for approval in the console", Until: t}
}

// What is waited for before there is a session ends too.
func TestStayEndsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ctx, _ := NewStay(t.Context(), true)
		<-ctx.Done()
		if err := context.Cause(ctx); !errors.Is(err, ErrLeft) || time.Since(began) != unheardLimit {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}
