// Package client speaks to a boot service's API as people's programs do.
package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// requestTimeout bounds one request and its answer.
const requestTimeout = 60 * time.Second

// The most that is read of one answer, and of one that refuses, in bytes.
const (
	maxAnswer  = 64 << 20
	maxProblem = 1 << 20
)

// Client speaks to one boot service, whose certificate is known by its
// fingerprint. Nothing else is believed: no authority, no name, no date.
type Client struct {
	server *url.URL
	token  string
	http   *http.Client
	tls    *tls.Config
}

// AnswerError is what the boot service answered instead of what was asked for.
type AnswerError struct {
	Status int
	Text   string
}

func (e *AnswerError) Error() string { return e.Text }

// FingerprintError is a server whose certificate is another than the one that
// was expected. Nothing was told to it.
type FingerprintError struct {
	Server    string
	Got, Want string // SHA-256, as Colons writes it
}

func (e *FingerprintError) Error() string {
	return fmt.Sprintf("%s: its certificate has the fingerprint\n  %s\nand not the one that was given or kept:\n  %s\n"+
		"It is another boot service, or one that was set up anew, or somebody is in between. Compare with the appliance's screen. "+
		"If the first one stands there: rackseed login --server %s --fingerprint FINGERPRINT", e.Server, e.Got, e.Want, e.Server)
}

// NoAnswerError is a server that did not answer.
type NoAnswerError struct {
	Server string
	Cause  error
}

func (e *NoAnswerError) Error() string {
	return fmt.Sprintf("%s: no answer: %v; is the boot service there, and the address the one on its screen? Once it runs on nodes, and its own address is gone, each of them answers at https://NODE:8443", e.Server, e.Cause)
}

func (e *NoAnswerError) Unwrap() error { return e.Cause }

// ErrInterrupted is what ends when the person who asked for it interrupts it.
var ErrInterrupted = errors.New("interrupted")

// interrupted says what is known of a request that was interrupted: what only
// reads changed nothing.
func (c *Client) interrupted(method string) error {
	if method == http.MethodGet {
		return fmt.Errorf("%w, nothing was done", ErrInterrupted)
	}
	return fmt.Errorf("%w before %s answered: whether it was done is not known here; rackseed events says it", ErrInterrupted, c.server)
}

// New makes a client. server is a URL as https://192.0.2.1.
func New(server, fingerprint, token string) (*Client, error) {
	u, err := ParseServer(server)
	if err != nil {
		return nil, err
	}
	want, err := parseFingerprint(fingerprint)
	if err != nil {
		return nil, err
	}
	config := pinned(want)
	transport := &http.Transport{
		TLSClientConfig: config, Proxy: http.ProxyFromEnvironment,
		TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: requestTimeout,
	}
	return &Client{server: u, token: token, tls: config, http: &http.Client{Transport: transport, Timeout: requestTimeout, CheckRedirect: stay}}, nil
}

// stay follows no redirect: no boot service makes one, and the token would go
// along to another port of its host.
func stay(r *http.Request, _ []*http.Request) error {
	return fmt.Errorf("it sends us away to %s, which no boot service does", r.URL.Redacted())
}

// Server is the boot service's URL.
func (c *Client) Server() *url.URL { return c.server }

// Transport speaks to the boot service for another protocol's client, as a
// registry's: its certificate is checked, and the token is added to what goes to
// it.
func (c *Client) Transport() http.RoundTripper { return authorized{c} }

type authorized struct{ c *Client }

func (a authorized) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != a.c.server.Host || r.URL.Scheme != a.c.server.Scheme {
		return nil, fmt.Errorf("%s: only %s is asked", r.URL.Redacted(), a.c.server)
	}
	r = r.Clone(r.Context())
	if a.c.token != "" {
		r.Header.Set("Authorization", "Bearer "+a.c.token)
	}
	return a.c.http.Transport.RoundTrip(r)
}

// ParseServer reads a URL as https://192.0.2.1; the scheme may be left out.
func ParseServer(server string) (*url.URL, error) {
	if !strings.Contains(server, "://") {
		server = "https://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("server %q: expected a URL as https://192.0.2.1; it stands on the appliance's screen", server)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// parseFingerprint reads a certificate's SHA-256 in hex, with or without colons.
func parseFingerprint(s string) ([]byte, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimPrefix(strings.ToLower(strings.TrimSpace(s)), "sha256:"), ":", ""))
	if err != nil || len(b) != sha256.Size {
		return nil, fmt.Errorf("fingerprint %q: expected 64 hex digits, with or without colons; it stands on the appliance's screen", s)
	}
	return b, nil
}

// pinned accepts the one certificate whose SHA-256 is want.
func pinned(want []byte) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The fingerprint is checked instead, on every connection.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			got := sha256.Sum256(state.PeerCertificates[0].Raw)
			if subtle.ConstantTimeCompare(got[:], want) != 1 {
				return &FingerprintError{Got: Colons(got[:]), Want: Colons(want)}
			}
			return nil
		},
	}
}

// Colons writes a fingerprint as the appliance's screen and browsers do.
func Colons(b []byte) string {
	parts := make([]string, len(b))
	for i, v := range b {
		parts[i] = fmt.Sprintf("%02X", v)
	}
	return strings.Join(parts, ":")
}

// Raw sends a request and returns the answer's body.
func (c *Client) Raw(ctx context.Context, method, path string, query url.Values, in any) ([]byte, error) {
	body, err := c.ask(ctx, c.http, method, path, query, in)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	answer, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	if err != nil {
		return nil, c.unreached(method, err)
	}
	if len(answer) > maxAnswer {
		return nil, fmt.Errorf("%s answered with more than %d MiB: ask for less at once", c.server, maxAnswer>>20)
	}
	return answer, nil
}

// Download writes the answer to a GET to w as it comes, however large it is and
// long it takes. An error leaves w with a part of it.
func (c *Client) Download(ctx context.Context, path string, w io.Writer) (int64, error) {
	unhurried := &http.Client{Transport: c.http.Transport, CheckRedirect: stay}
	body, err := c.ask(ctx, unhurried, http.MethodGet, path, nil, nil)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	n, err := io.Copy(w, body)
	if errors.Is(err, context.Canceled) {
		return n, c.interrupted(http.MethodGet)
	}
	if err != nil {
		return n, fmt.Errorf("%s: %s: broken off after %d bytes: %w", c.server, path, n, err)
	}
	return n, nil
}

// ask sends a request and returns the body of a good answer, to be closed.
func (c *Client) ask(ctx context.Context, by *http.Client, method, path string, query url.Values, in any) (io.ReadCloser, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.url("https", path, query), body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := by.Do(r)
	if err != nil {
		return nil, c.unreached(method, err)
	}
	if resp.StatusCode < 400 {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil {
		return nil, c.unreached(method, err)
	}
	return nil, c.refused(resp.StatusCode, answer)
}

// Call sends a request and decodes the answer into out, if that is not nil.
func (c *Client) Call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	answer, err := c.Raw(ctx, method, path, query, in)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s answered %s %s with something else than expected: %w; is it the same version?", c.server, method, path, err)
	}
	return nil
}

func (c *Client) url(scheme, path string, query url.Values) string {
	return scheme + "://" + c.server.Host + path + suffix(query)
}

func suffix(query url.Values) string {
	if len(query) == 0 {
		return ""
	}
	return "?" + query.Encode()
}

// unreached says why there was no answer, and what to look at.
func (c *Client) unreached(method string, err error) error {
	if errors.Is(err, context.Canceled) { // a signal's cause is one, too
		return c.interrupted(method)
	}
	var other *FingerprintError
	if errors.As(err, &other) {
		return &FingerprintError{c.server.String(), other.Got, other.Want}
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return &NoAnswerError{c.server.String(), err}
}

// invalid is the detail of an answer that refuses what a request holds, each
// fault in one of its errors.
const invalid = "validation failed"

// refused makes an error of a problem document (RFC 9457).
func (c *Client) refused(status int, answer []byte) error {
	var problem struct {
		Detail string `json:"detail"`
		Errors []struct {
			Message  string `json:"message"`
			Location string `json:"location"`
		} `json:"errors"`
	}
	text := http.StatusText(status)
	if json.Unmarshal(answer, &problem) == nil && problem.Detail != "" {
		said := []string{problem.Detail}
		if len(problem.Errors) > 0 && problem.Detail == invalid {
			said = nil // the errors say more
		}
		for _, e := range problem.Errors {
			// body and query are the API's words, and not those of who asked.
			_, name, found := strings.Cut(e.Location, ".")
			if !found {
				name = e.Location
			}
			said = append(said, name+": "+e.Message)
		}
		text = strings.Join(said, "; ")
	}
	return &AnswerError{status, text}
}

// Stream opens a stream at path and hands each message to got until ctx ends,
// got returns an error, or the stream ends. err is what ended it; a lost
// connection is a *LostError, after which one may resume.
func (c *Client) Stream(ctx context.Context, path string, query url.Values, got func(message []byte) error) error {
	header := http.Header{}
	if c.token != "" {
		header.Set("Authorization", "Bearer "+c.token)
	}
	dialer := websocket.Dialer{TLSClientConfig: c.tls, Proxy: http.ProxyFromEnvironment, HandshakeTimeout: 15 * time.Second}
	conn, resp, err := dialer.DialContext(ctx, c.url("wss", path, query), header)
	if resp != nil && err != nil {
		defer resp.Body.Close()
		answer, readErr := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
		return errors.Join(c.refused(resp.StatusCode, answer), readErr)
	}
	if err = c.lost(err); err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends ReadMessage
	defer stop()
	// The server pings every 20 s; silence means that it is gone.
	alive := func() error { return conn.SetReadDeadline(time.Now().Add(requestTimeout)) }
	conn.SetPingHandler(func(data string) error {
		return errors.Join(alive(), conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(10*time.Second)))
	})
	for {
		if err := alive(); err != nil {
			return &LostError{err}
		}
		_, message, err := conn.ReadMessage()
		var end *websocket.CloseError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &end) && (end.Code == websocket.ClosePolicyViolation || end.Code == websocket.CloseNormalClosure):
			return errors.New(end.Text)
		case err != nil:
			return c.lost(err)
		}
		if err := got(message); err != nil {
			return err
		}
	}
}

// lost is the error of a connection that ended, nil for nil. One to somebody else
// is not worth trying again.
func (c *Client) lost(err error) error {
	if err == nil {
		return nil
	}
	err = c.unreached(http.MethodGet, err)
	var other *FingerprintError
	if errors.As(err, &other) {
		return err
	}
	return &LostError{err}
}

// LostError is a connection that was lost, or not made.
type LostError struct{ error }

func (e *LostError) Unwrap() error { return e.error }
