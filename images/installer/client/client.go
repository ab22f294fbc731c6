// Package client speaks to the boot service as services/wire defines it.
package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/wire"
)

const (
	// answerLimit bounds one short request. The service address moves between
	// replicas: a connection to the one that died must not be waited for long.
	answerLimit = 20 * time.Second
	maxReply    = 8 << 20
	backoffMin  = 500 * time.Millisecond
	backoffMax  = 10 * time.Second
)

// StatusError is an answer of 400 and above.
type StatusError struct {
	Status int
	Text   string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("the boot service answers %d: %s", e.Status, e.Text)
}

// Permanent says whether asking again cannot help: the service understood, and
// says no. 503 and the like pass, and so does 409 only where the caller says so.
func Permanent(err error) bool {
	var s *StatusError
	if !errors.As(err, &s) || s.Status < 400 || s.Status >= 500 {
		return false
	}
	return s.Status != http.StatusRequestTimeout && s.Status != http.StatusTooEarly && s.Status != http.StatusTooManyRequests
}

// Client is one installer session's side of the conversation.
type Client struct {
	base string
	key  ed25519.PrivateKey
	http *http.Client
	log  *slog.Logger
	// stall is the time without a byte after which a transfer is begun again
	// where it stopped.
	stall time.Duration
	// pause waits; replaced by tests.
	pause func(context.Context, time.Duration) error
}

// New returns a client for the service at base ("http://192.0.2.1") that signs
// with key.
func New(base string, key ed25519.PrivateKey, log *slog.Logger) *Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 5 * time.Second}
	return &Client{
		base: strings.TrimRight(base, "/"), key: key, log: log, stall: 30 * time.Second, pause: pause,
		http: &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 4,
			IdleConnTimeout: 30 * time.Second, ResponseHeaderTimeout: time.Minute, DisableCompression: true}},
	}
}

// Over has requests made over another transport than the network, and returns c.
func (c *Client) Over(t http.RoundTripper) *Client {
	c.http.Transport = t
	return c
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Retry calls do until it succeeds, fails for good, or ctx ends. Each kind of
// trouble is told once, not at every try.
func (c *Client) Retry(ctx context.Context, what string, permanent func(error) bool, do func(context.Context) error) error {
	told, wait := "", backoffMin
	for {
		err := do(ctx)
		if err == nil {
			if told != "" {
				c.log.Info("done after waiting: " + what)
			}
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", what, errors.Join(context.Cause(ctx), err))
		}
		if permanent(err) {
			return fmt.Errorf("%s: %w", what, err)
		}
		if text := err.Error(); text != told {
			c.log.Warn("waiting: "+what, "error", err)
			told = text
		}
		// Jitter keeps the machines of a rack from coming back all at once.
		if err := c.pause(ctx, wait/2+rand.N(wait)); err != nil {
			continue // ctx has ended; the next round says so
		}
		wait = min(2*wait, backoffMax)
	}
}

// call makes one request. in nil is a GET, out nil wants no body.
func (c *Client) call(ctx context.Context, limit time.Duration, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	method, body := http.MethodGet, []byte(nil)
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
		method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, nil)
	if err != nil {
		return err
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	wire.Sign(r, c.key, body)
	resp, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return fmt.Errorf("%s: reading the answer: %w", path, err)
	}
	if resp.StatusCode >= 300 {
		return statusError(resp.StatusCode, reply)
	}
	if out == nil {
		return nil
	}
	if len(reply) > maxReply {
		return fmt.Errorf("%s: the answer is over %d bytes", path, maxReply)
	}
	if err := json.Unmarshal(reply, out); err != nil {
		return fmt.Errorf("%s: the answer is not understood: %w", path, err)
	}
	return nil
}

func statusError(status int, body []byte) *StatusError {
	var e wire.ErrorReply
	if json.Unmarshal(body, &e) != nil || e.Error == "" {
		e.Error = http.StatusText(status)
		if text := string(bytes.TrimSpace(body)); text != "" && len(text) < 500 {
			e.Error = text
		}
	}
	return &StatusError{status, e.Error}
}

// Time asks for the service's clock.
func (c *Client) Time(ctx context.Context) (time.Time, error) {
	var t wire.Time
	err := c.call(ctx, answerLimit, wire.PathTime, nil, &t)
	return t.Now, err
}

// OpenSession opens a session, or finds that of the same keys again.
func (c *Client) OpenSession(ctx context.Context, r wire.SessionRequest) (wire.SessionReply, error) {
	var reply wire.SessionReply
	err := c.call(ctx, answerLimit, wire.PathSession, r, &reply)
	if err == nil && reply.Session == "" {
		err = errors.New("the boot service names no session")
	}
	return reply, err
}

// Order asks what to do now; the service may answer only after wait.
func (c *Client) Order(ctx context.Context, wait time.Duration) (wire.Order, error) {
	var o wire.Order
	err := c.call(ctx, wait+answerLimit, wire.PathOrder+"?wait="+wait.String(), nil, &o)
	return o, err
}

// Claim asks for the permission to write.
func (c *Client) Claim(ctx context.Context, r wire.ClaimRequest) error {
	return c.call(ctx, answerLimit, wire.PathClaim, r, nil)
}

// Report sends one report.
func (c *Client) Report(ctx context.Context, r wire.Report) error {
	return c.call(ctx, answerLimit, wire.PathReport, r, nil)
}

// Ignition fetches this machine's, sealed.
func (c *Client) Ignition(ctx context.Context) (wire.Sealed, error) {
	var s wire.Sealed
	err := c.call(ctx, answerLimit, wire.PathIgnition, nil, &s)
	return s, err
}

// Output sends log lines and returns the number of the next line that is wanted.
func (c *Client) Output(ctx context.Context, o wire.Output) (uint64, error) {
	var reply wire.OutputReply
	err := c.call(ctx, answerLimit, wire.PathOutput, o, &reply)
	return reply.Next, err
}
