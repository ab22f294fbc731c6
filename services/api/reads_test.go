package api

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
	"github.com/rackseed/rackseed/services/support"
	"github.com/rackseed/rackseed/services/wire"
)

func TestImages(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Files = func(manifest string) ([]wire.File, error) {
			if strings.Contains(manifest, "ab") {
				return []wire.File{{Name: "root.erofs", Size: 100}, {Name: "vmlinuz", Size: 11}}, nil
			}
			return nil, errors.New("its manifest is not here")
		}
	})
	r.Image()
	r.Must(state.ImagePublish{Images: []machine.Image{{Ref: "ipxe", Digest: "sha256:" + strings.Repeat("cd", 32)}}})
	list := decode[List[Image]](t, r.want(200, "GET", "/api/images", "", bearer(siteToken)).body).Items
	if len(list) != 2 || list[0].Problem != "its manifest is not here" || list[1].Size != 111 || len(list[1].Files) != 2 || list[1].Problem != "" {
		t.Errorf("images: %+v", list)
	}
}

func TestSiteValidate(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.CheckProfile = func(p machine.Profile) error {
			if p.Name == "odd" {
				return errors.New("taint: no effect")
			}
			return nil
		}
	})
	check := func(text string) SiteCheck {
		t.Helper()
		return decode[SiteCheck](t, r.want(200, "POST", "/api/site/validate", marshal(t, SiteText{text}), bearer(siteToken)).body)
	}
	c := check("version: 1\nname: lab\nserviceAddress: nowhere\n")
	if c.Valid || c.Site != nil || len(c.Problems) != 2 {
		t.Fatalf("a bad one: %+v", c)
	}
	if p := c.Problems[1]; p.Line != 3 || p.Column != 17 || p.Path != "serviceAddress" || !strings.Contains(p.Expected, "IPv4") {
		t.Errorf("a bad one: %+v", p)
	}
	good := "version: 1\nname: lab\nserviceAddress: 192.0.2.1\nlinks:\n  - interface: eth0\n    address: 192.0.2.2/24\n" +
		"operators:\n  - name: ann\n    tokenSHA256: " + strings.Repeat("ab", 32) + "\n"
	if c := check(good); !c.Valid || c.Site == nil || len(c.Warnings) != 1 || c.Warnings[0].Path != "links" || len(c.Site.Profiles) != 2 || len(c.Problems) != 0 || c.Site.Operators[0].TokenSHA256 != "" {
		t.Errorf("a good one: %+v", c)
	}
	if c := check(good + "profiles:\n  - name: worker\n    role: worker\n    ignition: '{\"ignition\":{\"version\":\"9.9.9\"}}'\n"); c.Valid || !strings.Contains(marshal(t, c.Problems), "profiles[0].ignition") {
		t.Errorf("with an Ignition config that is none: %+v", c)
	}
	if c := check(good + "profiles:\n  - name: even\n    role: worker\n  - name: odd\n    role: worker\n"); c.Valid || len(c.Problems) != 1 || c.Problems[0].Path != "profiles[1]" {
		t.Errorf("with a profile that Kubernetes does not take: %+v", c)
	}
	if c := check(strings.Repeat("# not much to say\n", 100_000)); c.Valid || !strings.Contains(c.Problems[0].Text, "bytes") {
		t.Errorf("a large one: %+v", c)
	}
	if s, _ := r.View().Site(); s.Name != "lab" || len(s.Links) != 1 {
		t.Errorf("checking changed the site: %+v", s)
	}
}

// What the check of a site file warns of, the status says of the one in force.
func TestSiteWarnings(t *testing.T) {
	r := newRig(t)
	if a := r.want(200, "GET", "/api/status", "", bearer(siteToken)); !strings.Contains(a.body, `"siteWarnings":[]`) {
		t.Errorf("nothing odd: %s", a.body)
	}
	site, _ := r.View().Site()
	site.Emulated = true
	r.Must(state.SiteApply{Site: site})
	if s := decode[Status](t, r.want(200, "GET", "/api/status", "", bearer(siteToken)).body); len(s.SiteWarnings) != 1 || s.SiteWarnings[0].Path != "emulated" || s.SiteWarnings[0].Line != 0 {
		t.Errorf("for tests: %+v", s.SiteWarnings)
	}
}

// TestHealth tells strangers no more than that there is somebody.
func TestHealth(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Status = func() Status {
			return Status{Health: []Health{{Name: "dhcp", Text: "another DHCP server answers on eth0: 192.0.2.254"}}}
		}
	})
	if a := r.want(200, "GET", "/api/health", ""); strings.Contains(a.body, "dhcp") {
		t.Errorf("a stranger is told: %s", a.body)
	} else if cluster, _ := r.View().Cluster(); a.Header.Get(HeaderAuthority) != fmt.Sprintf("%d/%d/%s", cluster.Generation, cluster.Epoch, r.View().Leader()) {
		t.Errorf("%s: %q", HeaderAuthority, a.Header.Get(HeaderAuthority))
	}
	if a := r.want(200, "GET", "/api/health", "", bearer("wrong")); strings.Contains(a.body, "dhcp") {
		t.Errorf("a wrong token is told: %s", a.body)
	}
	if a := decode[Alive](t, r.want(200, "GET", "/api/health", "", bearer(siteToken)).body); len(a.Health) != 1 || a.Health[0].OK {
		t.Errorf("an operator is told: %+v", a)
	}
}

// TestSupportBundle opens a bundle of a busy boot service and looks for every
// secret that its state has.
func TestSupportBundle(t *testing.T) {
	log := &support.Ring{}
	fmt.Fprintln(log, "replica: a line of its log")
	r := newRig(t, func(c *Config) { c.Log = log })
	r.Image()
	auth := bearer(siteToken)
	site, _ := r.View().Site()
	site.Profiles[0].Ignition = `{"ignition":{"version":"3.4.0"},"passwd":{"users":[{"name":"core","passwordHash":"$y$j9T$salt$hash"}]}}`
	r.Must(state.SiteApply{Site: site})
	session := decode[Login](t, r.want(200, "POST", "/api/setup", `{"code":"`+testCode+`","name":"bob","password":"correct horse"}`).body)
	id := r.Waiting(1)
	r.want(200, "POST", "/api/machines/"+string(id)+"/approve", `{"name":"alpha"}`, auth)
	r.Installed(id)
	r.Started(id)
	kubeconfig := r.want(200, "GET", "/api/kubeconfig", "", auth).body

	a := r.want(200, "GET", "/api/support-bundle", "", auth)
	if a.Header.Get("Content-Type") != "application/gzip" {
		t.Errorf("it is of type %q", a.Header.Get("Content-Type"))
	}
	files := untar(t, []byte(a.body))
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	want := "README.txt cluster.json events.jsonl images.json intents.json leases.json log.txt machines.json site.json status.json versions.json"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("it has %s, want %s", got, want)
	}
	for name, part := range map[string]string{
		"events.jsonl": "kubeconfig.made", "machines.json": `"name": "alpha"`, "intents.json": `"status": "done"`, "log.txt": "a line of its log",
		"site.json": `"name": "lab"`, "status.json": `"discovery"`, "versions.json": `"go"`, "cluster.json": `"c-1"`, "images.json": `"node"`, "leases.json": "[]",
	} {
		if !strings.Contains(files[name], part) {
			t.Errorf("%s lacks %s:\n%s", name, part, files[name])
		}
	}
	if n := uint64(strings.Count(files["events.jsonl"], "\n")); n != r.View().LastEvent() {
		t.Errorf("%d of %d events", n, r.View().LastEvent())
	}

	seed, ok := r.View().Secret("node/" + string(id))
	user, known := r.View().User("bob")
	if !ok || !known || bcrypt.CompareHashAndPassword(user.PasswordHash, []byte("correct horse")) != nil {
		t.Fatal("the state has no secrets to look for")
	}
	secrets := map[string][]byte{
		"the node's seed": seed, "a key of the cluster": []byte(statetest.Secret), "a session's token": []byte(session.Token),
		"a token's hash": hashToken(session.Token), "the site's token": []byte(siteToken), "its hash": hashToken(siteToken),
		"a password's hash": user.PasswordHash, "a password": []byte("correct horse"), "the setup code": []byte(testCode),
		"its hash ": SetupHash(testCode), "a kubeconfig": []byte(kubeconfig), "a password's hash in Ignition": []byte("$y$j9T$salt$hash"),
	}
	for name, content := range files {
		for what, secret := range secrets {
			for form, text := range forms(t, secret) {
				if strings.Contains(content, text) {
					t.Errorf("%s holds %s (%s)", name, what, form)
				}
			}
		}
	}
}

// forms are the ways in which bytes get into text.
func forms(t *testing.T, secret []byte) map[string]string {
	t.Helper()
	quoted, err := json.Marshal(string(secret))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"as it is": string(secret), "in JSON": strings.Trim(string(quoted), `"`), "in hex": fmt.Sprintf("%x", secret),
		"in base64": base64.StdEncoding.EncodeToString(secret), "in base64, for URLs": base64.RawURLEncoding.EncodeToString(secret),
	}
}

func untar(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		files[path.Base(h.Name)] = string(b)
	}
}
