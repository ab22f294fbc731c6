package netboot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/rackseed/rackseed/services/bounded"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

const (
	maxSmall   = 64 << 10  // bytes of a body that is only a few fields
	maxSession = 512 << 10 // of an inventory
	// longestWait is the longest that a long poll waits.
	longestWait = 30 * time.Second
	// bodyWait is how long a request waits until its body may be read.
	bodyWait = 5 * time.Second
	// proposeLimit bounds a commit that nothing but a record depends on.
	proposeLimit = 10 * time.Second
)

// bodyPace is how fast a body has to come: a machine sends it at once, over a
// network of its own.
var bodyPace = bounded.Pace{Stall: 5 * time.Second, Slowest: 64 << 10, Grace: 5 * time.Second}

// caller is the machine whose key signed a request.
type caller struct {
	machine machine.Machine
	node    bool // it signed by its node key, not by its newest installer session's
	key     []byte
	body    []byte
}

// verify reads a signed request. Whose key it is, is not looked at.
func (s *Server) verify(w http.ResponseWriter, r *http.Request, most int64) (body, key []byte, err error) {
	if r.ContentLength != 0 {
		leave, err := s.enterBody(r)
		if err != nil {
			return nil, nil, err
		}
		defer leave()
		r.Body = http.MaxBytesReader(w, bodyPace.Body(w, r.Body), most)
	}
	body, key, err = wire.Verify(r)
	var big *http.MaxBytesError
	switch {
	case errors.As(err, &big):
		return nil, nil, status(http.StatusRequestEntityTooLarge, fmt.Errorf("the request's body is over %d bytes", most))
	case err != nil && !errors.Is(err, wire.ErrUnsigned):
		return nil, nil, status(http.StatusBadRequest, err)
	}
	return body, key, err
}

// enterBody takes a place to read a body in. One source has only some, so that
// nobody's slow bodies keep others from asking.
func (s *Server) enterBody(r *http.Request) (leave func(), err error) {
	from := bounded.Source(r.RemoteAddr)
	if !s.senders.Enter(from) {
		return nil, status(http.StatusServiceUnavailable, errors.New("too many requests at once from this address: ask again"))
	}
	wait := time.NewTimer(bodyWait)
	defer wait.Stop()
	select {
	case s.bodies <- struct{}{}:
		return func() { <-s.bodies; s.senders.Leave(from) }, nil
	case <-r.Context().Done():
		err = r.Context().Err()
	case <-wait.C:
		err = status(http.StatusServiceUnavailable, errors.New("too many requests at once: ask again"))
	}
	s.senders.Leave(from)
	return nil, err
}

// identify finds the machine of a key in the newest view.
func (s *Server) identify(key []byte) (m machine.Machine, node, ok bool) {
	v := s.Store.View()
	if m, ok := v.MachineBySignKey(key); ok {
		return m, false, true
	}
	m, ok = v.MachineByNodeKey(key)
	return m, true, ok
}

var errUnknownKey = errors.New("the key that signed this is no machine's: " +
	"its installer session was replaced by a newer one, or its approval by another")

type signedHandler func(w http.ResponseWriter, r *http.Request, c caller) error

// signed lets a machine through that signs by its newest session's key or its
// node key.
func (s *Server) signed(most int64, h signedHandler) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		body, key, err := s.verify(w, r, most)
		if err != nil {
			return err
		}
		m, node, ok := s.identify(key)
		if !ok {
			return status(http.StatusForbidden, errUnknownKey)
		}
		c := caller{m, node, key, body}
		if node && r.Header.Get(wire.HeaderNonce) != "" {
			return s.authenticated(w, r, c, h)
		}
		return h(w, r, c)
	}
}

// authenticated answers a node so that it knows who answers, errors too. A replica that
// cannot open the node's secret does nothing for it.
func (s *Server) authenticated(w http.ResponseWriter, r *http.Request, c caller, h signedHandler) error {
	seed, err := s.Store.View().OpenSecret(state.NodeSecret(c.machine.ID))
	if err != nil {
		return status(http.StatusServiceUnavailable, fmt.Errorf("machine %s: its node's key: %w", c.machine.ID, err))
	}
	a := &answer{ResponseWriter: w, status: http.StatusOK}
	if err := h(a, r, c); err != nil {
		s.fail(a, r, err)
	}
	code, err := wire.ReplyCode(seed, r, a.status, a.body.Bytes())
	if err != nil {
		return err
	}
	w.Header().Set(wire.HeaderReply, code)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes()) // the node is gone: it asks again
	return nil
}

// answer is one that waits for its end.
type answer struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// installerOnly lets only the newest session's key through.
func (s *Server) installerOnly(most int64, h signedHandler) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		body, key, err := s.verify(w, r, most)
		if err != nil {
			return err
		}
		m, node, ok := s.identify(key)
		switch {
		case ok && !node:
			return h(w, r, caller{m, false, key, body})
		case !ok && r.URL.Path == wire.PathOrder:
			// An order, not an error: the installer shall stop.
			return writeJSON(w, wire.Order{Kind: wire.OrderRevoked, Reason: errUnknownKey.Error()})
		}
		return status(http.StatusForbidden, errUnknownKey)
	}
}

// nodeOnly lets only a node key through.
func (s *Server) nodeOnly(most int64, h signedHandler) func(http.ResponseWriter, *http.Request) error {
	return s.signed(most, func(w http.ResponseWriter, r *http.Request, c caller) error {
		if !c.node {
			return status(http.StatusForbidden, errors.New("an installer's key signed this: a node key is expected"))
		}
		return h(w, r, c)
	})
}

// propose commits a command for a request, as the machine.
func (s *Server) propose(r *http.Request, m machine.Machine, c state.Command) error {
	ctx, cancel := context.WithTimeout(r.Context(), proposeLimit)
	defer cancel()
	_, err := s.Store.Propose(ctx, string(m.ID), c)
	return err
}

// binding commits a command whose outcome permits something. The answer is
// dropped when the commit took longer than answerLimit.
func (s *Server) binding(r *http.Request, m machine.Machine, c state.Command) error {
	began := s.Now()
	ctx, cancel := context.WithTimeout(r.Context(), answerLimit)
	defer cancel()
	if _, err := s.Store.Propose(ctx, string(m.ID), c); err != nil {
		return err
	}
	if took := s.Now().Sub(began); took > answerLimit {
		return status(http.StatusServiceUnavailable, fmt.Errorf("machine %s: the commit took %v: ask again", m.ID, took.Round(time.Millisecond)))
	}
	return nil
}

// pollTime reads ?wait=; what cannot be read does not wait.
func pollTime(ask string) time.Duration {
	wait, err := time.ParseDuration(ask)
	if err != nil {
		return 0
	}
	return min(max(wait, 0), longestWait)
}

// poll answers as soon as answer is not waiting any more, or after the wait
// that the request asks for (?wait=25s, at most longestWait).
func poll[T any](s *Server, r *http.Request, tables []string, answer func(state.View) (T, bool, error)) (T, error) {
	timer := time.NewTimer(pollTime(r.URL.Query().Get("wait")))
	defer timer.Stop()
	for {
		view := s.Store.View()
		changed := view.Changed(tables...)
		v, waiting, err := answer(view)
		if err != nil || !waiting {
			return v, err
		}
		select {
		case <-changed:
		case <-timer.C:
			return v, nil
		case <-r.Context().Done():
			return v, r.Context().Err()
		}
	}
}
