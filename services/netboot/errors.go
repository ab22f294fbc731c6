package netboot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/durable"
	"github.com/rackseed/rackseed/services/events"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

// statusError is an error with the HTTP status that it is answered with.
type statusError struct {
	code int
	error
}

func (e statusError) Unwrap() error { return e.error }

func status(code int, err error) error { return statusError{code, err} }

// codeOf is the HTTP status for an error: what the machine can do about it
// follows from its class. 4xx: not this request again; 409: the state forbids
// it; 503: again, soon.
func codeOf(err error) int {
	var own statusError
	var refused *state.Refusal
	switch {
	case errors.As(err, &own):
		return own.code
	case errors.As(err, &refused):
		return http.StatusConflict
	case errors.Is(err, wire.ErrUnsigned):
		return http.StatusUnauthorized
	case errors.Is(err, events.ErrRequest):
		return http.StatusBadRequest
	case errors.Is(err, events.ErrBudget):
		return http.StatusTooManyRequests
	case errors.Is(err, state.ErrUnwritable):
		return http.StatusServiceUnavailable
	case errors.Is(err, events.ErrSpace), durable.Unwritable(err):
		return http.StatusInsufficientStorage
	case errors.Is(err, fs.ErrNotExist):
		return http.StatusNotFound
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// retryAfter is when to ask again, in seconds (RFC 9110 section 10.2.3).
var retryAfter = map[int]string{
	http.StatusServiceUnavailable: "2", http.StatusTooManyRequests: "60", http.StatusInsufficientStorage: "60",
}

// fail answers with an error. GRUB takes the text of an error for the file that
// it asked for, be it a script, a kernel or an initrd: to it the connection
// breaks off, it waits half a minute, and asks again (seen with 2.12).
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	code := codeOf(err)
	log := s.Logger.Debug
	if code >= 500 {
		log = s.Logger.Warn
	}
	log("request", "method", r.Method, "path", r.URL.Path, "from", r.RemoteAddr, "status", code, "error", err)
	if strings.HasPrefix(r.UserAgent(), "GRUB ") && (r.URL.Path == pathGRUB || strings.HasPrefix(r.URL.Path, pathBlobs)) {
		panic(http.ErrAbortHandler)
	}
	if wait := retryAfter[code]; wait != "" && w.Header().Get("Retry-After") == "" {
		w.Header().Set("Retry-After", wait)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(wire.ErrorReply{Error: err.Error()}) // the machine is gone
}

func writeJSON(w http.ResponseWriter, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(b) // the machine is gone: it asks again
	return nil
}

// readJSON decodes a body. Fields that this version does not know are passed
// over: a newer installer may talk to an older replica for a while.
func readJSON(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return status(http.StatusBadRequest, fmt.Errorf("the request's body: %w", err))
	}
	return nil
}

// deadline bounds how long reading the request and writing the answer may
// take. A ResponseWriter that has no deadlines, as in a test without a socket,
// has nobody slow behind it either.
func deadline(w http.ResponseWriter, limit time.Duration) {
	t := time.Now().Add(limit)
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(t)
	_ = c.SetWriteDeadline(t)
}
