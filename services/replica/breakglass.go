package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/durable"
	"github.com/rackseed/rackseed/services/state"
)

// breakGlass makes a new setup code, by which one person becomes an administrator.
// It is told to who asks and kept nowhere but as its hash.
func (r *replica) breakGlass(ctx context.Context) (code string, err error) {
	store := r.store.Load()
	if store == nil {
		return "", errStarting
	}
	if m := store.Membership(); m.Leader == "" {
		return "", &state.Refusal{Text: fmt.Sprintf("no replica leads, so that nothing can be committed: more than half of the voters must reach each other, of %s; if they are lost for ever, see rackseed recover", m)}
	}
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	host, err := os.Hostname()
	if err != nil {
		return "", err
	}
	code = newSetupCode()
	if _, err := store.Propose(ctx, "root@"+host, state.SetupRenew{SetupHash: api.SetupHash(code)}); err != nil {
		return "", err
	}
	return code, durable.Remove(r.setupFile()) // it has an older one
}

// BreakGlass is the answer to POST /break-glass on the local socket.
type BreakGlass struct {
	Code        string   `json:"code,omitempty"`
	ConsoleURLs []string `json:"consoleURLs,omitempty"`
	Fingerprint string   `json:"fingerprint,omitempty"` // of the console's certificate
	Error       string   `json:"error,omitempty"`
}

func (r *replica) serveBreakGlass(w http.ResponseWriter, q *http.Request) {
	code, err := r.breakGlass(q.Context())
	s := r.status()
	answer, status := BreakGlass{Code: code, ConsoleURLs: s.ConsoleURLs, Fingerprint: s.Fingerprint}, http.StatusOK
	if err != nil {
		answer, status = BreakGlass{Error: err.Error()}, http.StatusServiceUnavailable
		if refusal := (*state.Refusal)(nil); errors.As(err, &refusal) {
			status = http.StatusConflict
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		r.Logger.Warn("replica: the setup code may not have arrived; ask for another", "error", err)
	}
}
