package api

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/setup"
)

func TestSetupOfASite(t *testing.T) {
	dir := t.TempDir()
	given := filepath.Join(dir, "given.yaml")
	r := newRig(t, func(c *Config) {
		c.Setup = &setup.Service{
			Files: setup.FilesOf(given, dir),
			List: func() ([]setup.Link, error) {
				return []setup.Link{{Name: "eth0", MAC: "52:54:00:77:00:01", Driver: "virtio_net"}}, nil
			},
		}
	})
	auth := bearer(siteToken)
	state := func() SetupState {
		t.Helper()
		return decode[SetupState](t, r.want(200, "GET", "/api/setup", "", auth).body)
	}
	if s := state(); s.Source != setup.Nowhere || len(s.Problems) != 1 || s.Lost == nil {
		t.Errorf("at first: %+v", s)
	}
	links := decode[List[setup.Found]](t, r.want(200, "GET", "/api/setup/links", "", auth).body).Items
	if len(links) != 1 || links[0].Name != "eth0" || links[0].Carrier || links[0].Offers == nil {
		t.Errorf("links: %+v", links)
	}
	if a := r.want(409, "POST", "/api/setup/propose", `{"mac":"52:54:00:77:00:09","dhcp":true}`, auth); !strings.Contains(a.detail(), "no link") {
		t.Errorf("of a link that is not there: %s", a.detail())
	}
	d := decode[SetupDraft](t, r.want(200, "POST", "/api/setup/propose", `{"mac":"52:54:00:77:00:01","address":"192.0.2.2/24","dhcp":true}`, auth).body)
	if d.Draft.Service == "" || d.Draft.From == "" || !strings.Contains(d.Text, "address: 192.0.2.2/24") {
		t.Fatalf("proposed: %+v", d)
	}
	d.Draft.Name = ""
	d = decode[SetupDraft](t, r.want(200, "POST", "/api/setup/check", marshal(t, d.Draft), auth).body)
	if len(d.Problems) != 1 || d.Problems[0].Path != "name" {
		t.Errorf("without a name: %+v", d.Problems)
	}
	if a := r.want(422, "POST", "/api/setup/keep", marshal(t, SiteText{d.Text}), auth); !strings.Contains(a.body, "site.yaml:") || !strings.Contains(a.body, "name") {
		t.Errorf("kept without a name: %s", a.body)
	}
	d.Draft.Name = "hall"
	d = decode[SetupDraft](t, r.want(200, "POST", "/api/setup/check", marshal(t, d.Draft), auth).body)
	if c := decode[SiteCheck](t, r.want(200, "POST", "/api/setup/keep", marshal(t, SiteText{d.Text}), auth).body); !c.Valid || c.Site == nil || c.Site.Name != "hall" {
		t.Errorf("kept: %+v, of %+v", c, d)
	}
	if s := state(); s.Source != setup.Kept || s.Draft.Name != "hall" || len(s.Problems) != 0 {
		t.Errorf("then: %+v", s)
	}
	events := r.View().Events(0, "", 0)
	if e := events[len(events)-1]; e.Kind != "site.kept" || !strings.Contains(e.Text, "hall") || !strings.Contains(e.Text, "ann") {
		t.Errorf("the last event is %+v", e)
	}
	if err := os.WriteFile(given, []byte(d.Text), 0o600); err != nil {
		t.Fatal(err)
	}
	if a := r.want(409, "POST", "/api/setup/keep", marshal(t, SiteText{d.Text}), auth); !strings.Contains(a.detail(), "RACKSEED") {
		t.Errorf("kept beside a valid file on the stick: %s", a.detail())
	}
	for _, path := range []string{"/api/setup", "/api/setup/links"} {
		r.want(401, "GET", path, "")
		newRig(t).want(409, "GET", path, "", auth)
	}
}
