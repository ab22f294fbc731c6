package cli

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/recovery"
	"github.com/rackseed/rackseed/services/replica"
)

// While a replica leads, as the one on this machine knows, recover stops nothing: that may
// take a majority away. Where none leads it is stopped, looked at and started again.
func TestRecoverStopsNothingBesideALeader(t *testing.T) {
	for _, leads := range []string{"node-1", ""} {
		socket := filepath.Join(t.TempDir(), "local.sock")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if err := json.NewEncoder(w).Encode(replica.Status{Status: api.Status{Leads: leads}}); err != nil {
				t.Error(err)
			}
		})}
		go server.Serve(l)
		t.Cleanup(func() { server.Close() })
		did := ""
		host := recovery.Host{
			Data: t.TempDir(), Socket: socket,
			Stop:  func() error { did += "stopped "; return nil },
			Start: func() error { did += "started"; return nil },
		}
		root := &cobra.Command{Use: "rackseed", SilenceUsage: true, SilenceErrors: true}
		AddLocal(root, func() (recovery.Host, error) { return host, nil }, "v1")
		root.SetArgs([]string{"recover", "--dry-run"})
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		err = root.ExecuteContext(t.Context())
		want, says := "stopped started", "there is no replica in it"
		if leads != "" {
			want, says = "", "nothing was done: replica node-1 leads"
		}
		if err == nil || !strings.Contains(err.Error(), says) || did != want {
			t.Errorf("%q leads: it %q, and says %v", leads, did, err)
		}
	}
}
