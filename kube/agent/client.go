package agent

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/rackseed/rackseed/services/wire"
)

// client speaks to the boot service, signed by the node's key.
type client struct {
	url  string
	key  ed25519.PrivateKey
	http *http.Client
}

// requestTimeout bounds one request. It is above the longest long poll, which
// the boot service ends after 30 s.
const requestTimeout = 45 * time.Second

// maxReply is the most that is read of a reply, in bytes.
const maxReply = 1 << 20

func newClient(url string, seed []byte) *client {
	return &client{
		url: url,
		key: ed25519.NewKeyFromSeed(seed),
		http: &http.Client{
			Timeout: requestTimeout,
			Transport: &http.Transport{
				// The boot service is on the node's own network.
				Proxy:               nil,
				DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
				MaxIdleConnsPerHost: 4,
				IdleConnTimeout:     time.Minute,
			},
		},
	}
}

// statusError is the boot service's no. What anybody could have said is none, but as if
// nobody had answered.
type statusError struct {
	Status int
	Text   string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("the boot service answered %d: %s", e.Status, e.Text)
}

// errNotAuthentic is a reply that may be anybody's.
var errNotAuthentic = errors.New("the reply is not authenticated by this node's key, and nothing is done for it: another host answers at the boot service's address, or the boot service cannot say who it is just now (too many requests, a key that it does not know or cannot open)")

// final says that asking again changes nothing: the request itself is wrong.
// An unknown key is not final, since a replica may be behind.
func final(err error) bool {
	var s *statusError
	return errors.As(err, &s) &&
		(s.Status == http.StatusBadRequest || s.Status == http.StatusNotFound || s.Status == http.StatusConflict ||
			s.Status == http.StatusUnprocessableEntity)
}

// call does one request, once. in (if not nil) goes as JSON, the reply into out
// (if not nil).
func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, c.url+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	wire.Sign(request, c.key, body)
	wire.Challenge(request)
	reply, err := c.http.Do(request)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(io.LimitReader(reply.Body, maxReply))
	if e := reply.Body.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("%s %s: reading the reply: %w", method, path, err)
	}
	authentic := wire.Authentic(c.key.Seed(), request, reply, b)
	if reply.StatusCode >= 300 {
		var e wire.ErrorReply
		if json.Unmarshal(b, &e) != nil || e.Error == "" {
			e.Error = http.StatusText(reply.StatusCode)
		}
		if !authentic {
			return fmt.Errorf("%s %s: %w; it says %d: %.200s", method, path, errNotAuthentic, reply.StatusCode, e.Error)
		}
		return &statusError{reply.StatusCode, e.Error}
	}
	if !authentic {
		return fmt.Errorf("%s %s: %w", method, path, errNotAuthentic)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s %s: the reply: %w", method, path, err)
	}
	return nil
}

// backoff grows from first to most by doubling, and is spread by up to a
// quarter: a rack that powers on at once must not ask at once for ever.
type backoff struct {
	first, most time.Duration
	next        time.Duration
}

// delay gives the next one.
func (b *backoff) delay() time.Duration {
	b.next = min(max(b.next*2, b.first), b.most)
	return b.next + rand.N(b.next/4+1)
}

// wait waits once, and says whether the context still lives.
func (b *backoff) wait(ctx context.Context) bool { return pause(ctx, b.delay()) }

func (b *backoff) reset() { b.next = 0 }
