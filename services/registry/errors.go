package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
)

// refusal is an answer in the protocol's form (distribution-spec, "Error
// Codes"), with an HTTP status of its own choice.
type refusal struct {
	status int
	code   string
	text   string
}

var _ ociregistry.Error = (*refusal)(nil)

func (r *refusal) Error() string           { return r.text }
func (r *refusal) Code() string            { return r.code }
func (r *refusal) Detail() json.RawMessage { return nil }

// Codes that the distribution-spec lacks; Docker's registry has them.
const codeUnavailable = "UNAVAILABLE"

func refuse(status int, of ociregistry.Error, format string, args ...any) error {
	return &refusal{status, of.Code(), fmt.Sprintf(format, args...)}
}

func unavailable(format string, args ...any) error {
	return &refusal{http.StatusServiceUnavailable, codeUnavailable, fmt.Sprintf(format, args...)}
}

func tooMany(format string, args ...any) error {
	return refuse(http.StatusTooManyRequests, ociregistry.ErrTooManyRequests, format, args...)
}

// retryAfter is what a client that comes too often is told to wait.
const retryAfter = 5 * time.Second

// writeError answers with an error.
func (g *Registry) writeError(w http.ResponseWriter, r *http.Request, err error) {
	// The library wraps what a backend says in words of its own.
	var own *refusal
	if errors.As(err, &own) {
		err = own
	}
	body, status := ociregistry.MarshalError(err)
	if own != nil {
		status = own.status
	}
	if status >= http.StatusInternalServerError && r.Context().Err() == nil {
		g.Logger.Error("registry: request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if status == http.StatusTooManyRequests && h.Get("Retry-After") == "" {
		h.Set("Retry-After", strconv.Itoa(int(retryAfter/time.Second)))
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // that the client went away concerns nobody
}
