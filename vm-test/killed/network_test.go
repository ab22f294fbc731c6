package killed

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"time"

	"github.com/rackseed/rackseed/services/wire"
)

var (
	errPower   = errors.New("the machine has no power")
	errRefused = errors.New("connection refused")
	errReset   = errors.New("connection reset by peer")
	errLost    = errors.New("no answer: timed out")
)

// patience is how long a client waits that sets no limit itself.
const patience = time.Minute

// fate is what happens to one request.
type fate int

const (
	passes       fate = iota
	requestLost       // it never arrives
	answerLost        // it is done, and nobody hears of it
	answerCut         // the same, and the client is told at once
	answerLate        // it is done, and heard of later
	twice             // it arrives once more, later
	serviceFirst      // the boot service loses its power before it arrives
	serviceAfter      // … after it is done, and before the answer leaves
	machineFirst      // the machine loses its power before it is sent
	machineAfter      // … after it is done, and before the answer arrives
)

var fateNames = []string{"passes", "request lost", "answer lost", "answer cut", "answer late", "arrives twice",
	"boot service cut before", "boot service cut after", "machine cut before", "machine cut after"}

// chances are each fate's, of 1000, in bad weather.
var chances = []struct {
	fate fate
	of   int
}{{requestLost, 25}, {answerLost, 25}, {answerCut, 25}, {answerLate, 25}, {twice, 40}, {serviceFirst, 4}, {serviceAfter, 6}, {machineFirst, 8}, {machineAfter, 12}}

// RoundTrip carries a request to the boot service, as far as it comes.
func (p *power) RoundTrip(r *http.Request) (*http.Response, error) {
	b := p.box
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		_ = r.Body.Close()
	}
	if p.off() {
		return nil, errPower
	}
	f, late := b.fate()
	if f != passes {
		b.r.tell("%s: %s %s: %s", b, r.Method, r.URL.Path, fateNames[f])
	}
	switch f {
	case machineFirst:
		p.cut()
		return nil, errPower
	case serviceFirst:
		b.r.service.cut("as " + b.String() + " asks")
	case requestLost:
		return nil, lost(r.Context())
	}
	if b.unplugged() {
		return nil, lost(r.Context())
	}
	if f == twice {
		b.r.later.Go(func() {
			wait(b.r.ctx, late)
			_, _ = b.deliver(b.r.ctx, r, body)
		})
	}
	b.record(r, body)
	answer, err := b.deliver(r.Context(), r, body)
	switch {
	case p.off():
		return nil, errPower
	case err != nil:
		return nil, err
	}
	switch f {
	case machineAfter:
		p.cut()
		return nil, errPower
	case serviceAfter:
		b.r.service.cut("as it answers " + b.String())
		return nil, errReset
	case answerCut:
		return nil, errReset
	case answerLost:
		return nil, lost(r.Context())
	case answerLate:
		wait(r.Context(), late/10)
	}
	if b.unplugged() {
		return nil, lost(r.Context())
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if p.off() {
		return nil, errPower
	}
	b.r.ledger.acknowledged(b, r, body, answer)
	response := answer.Result()
	response.Request = r
	return response, nil
}

// recorded is a request that somebody on the wire has, and can send again: it is
// plain HTTP.
type recorded struct {
	request *http.Request
	body    []byte
}

const kept = 12 // recorded requests of one machine

// record keeps those that are worth sending again.
func (b *box) record(r *http.Request, body []byte) {
	switch r.URL.Path {
	case wire.PathClaim, wire.PathReport, wire.PathIgnition, wire.PathNodeReport, wire.PathNodeOrder:
	default:
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wire = append(b.wire, recorded{r, body})
	b.wire = b.wire[max(0, len(b.wire)-kept):]
}

// replay sends again what was recorded of all machines: at the moment of a change,
// when an old permission could be taken for a new one.
func (r *run) replay() {
	if r.calm.Load() || r.weather < 4 {
		return
	}
	for _, b := range r.rack {
		b.mu.Lock()
		again := slices.Clone(b.wire)
		b.mu.Unlock()
		for _, old := range again {
			r.later.Go(func() { _, _ = b.deliver(r.ctx, old.request, old.body) })
		}
	}
}

// lost waits as a client does that hears nothing.
func lost(ctx context.Context) error {
	wait(ctx, patience)
	if err := ctx.Err(); err != nil {
		return err
	}
	return errLost
}

// deliver has the boot service that runs now work on a request. An error says
// that there is none, or none any more.
func (b *box) deliver(ctx context.Context, r *http.Request, body []byte) (*httptest.ResponseRecorder, error) {
	i := b.r.service.enter()
	if i == nil {
		return nil, errRefused
	}
	serving, cancel := context.WithCancel(i.ctx)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)() // the client went
	in := r.Clone(serving)
	in.URL.Scheme, in.URL.Host, in.RequestURI, in.RemoteAddr = "", "", r.URL.RequestURI(), b.address
	in.Body = io.NopCloser(bytes.NewReader(body))
	answer := httptest.NewRecorder()
	before := b.r.ledger.generation()
	done := make(chan struct{})
	// It is over when it is, also if its client went: as with a real server.
	go func() {
		defer i.work.Done()
		defer close(done)
		i.server.ServeHTTP(answer, in)
		b.r.ledger.served(b, r, body, answer, before)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-i.ctx.Done():
		return nil, errReset
	}
	if i.dead.Load() {
		return nil, errReset
	}
	return answer, nil
}
