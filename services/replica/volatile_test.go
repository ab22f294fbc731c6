package replica

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/api"
)

// Without durable data nothing is served but console and screen, until the
// site file says memoryOnly, and again when it no longer does.
func TestVolatileServesNoMachine(t *testing.T) {
	dir := t.TempDir()
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "site.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(goodSite)
	r := startWith(t, dir, false, func(c *Config) { c.Volatile = "the stick is a CD" })
	var login api.Login
	if status := r.ask("POST", "/api/setup", "", api.SetupRequest{Code: r.code, Name: "ann", Password: "correct horse"}, &login); status != 200 {
		t.Fatalf("setup: status %d", status)
	}
	warned := func(part string) {
		t.Helper()
		var people api.Status
		if r.ask("GET", "/api/status", login.Token, nil, &people); len(people.Warnings) == 0 || people.Warnings[0].Kind != api.WarnVolatile || !strings.Contains(people.Warnings[0].Text, part) {
			t.Errorf("the console warns %q, want %q in it", people.Warnings, part)
		}
	}
	none := func(s Status) bool {
		for _, name := range []string{"machines", "approval"} {
			if h := health(s, name); h.OK || !strings.Contains(h.Text, "the stick is a CD") {
				return false
			}
		}
		return s.Site == "lab" && health(s, "console").OK && health(s, "netboot") == (api.Health{})
	}
	r.until("no machine is served", none)
	warned("memoryOnly: true")
	put(goodSite + "memoryOnly: true\n")
	r.until("machines are served from memory", func(s Status) bool { return health(s, "netboot").OK && health(s, "approval").OK })
	warned("Do not install machines that matter")
	put(goodSite)
	r.until("no machine is served any more", none)
	if err := r.stop(); err != nil {
		t.Fatalf("stopped: %v", err)
	}
}
