package registry

import (
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestNames(t *testing.T) {
	for ref, name := range map[string]string{
		"node": "rackseed/node:latest", "installer": "rackseed/installer:latest",
		"lab/app:v1": "lab/app:v1", "app:latest": "app:latest",
	} {
		repo, tag := split(ref)
		if Name(ref) != name || join(repo, tag) != ref {
			t.Errorf("%s is called %s, and read as %s", ref, Name(ref), join(repo, tag))
		}
	}
	for _, c := range [][2]string{{"rackseed/node", "v2"}, {"rackseed/", "v2"}} {
		if got := join(c[0], c[1]); got != "" {
			t.Errorf("%s is %q", c, got)
		}
	}
}

func TestCheckRepository(t *testing.T) {
	for repo, want := range map[string]string{
		"lab/app": "", "rackseed.localhost/app": "", "rackseed/node": "push to another repository, as lab/node",
		"rackseed.local/lab/app": "push to lab/app",
	} {
		if err := (Config{}).checkRepository(repo); (err == nil) != (want == "") || err != nil && !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", repo, err, want)
		}
	}
}

// Where the boot service runs on nodes its own image comes by a push, and by no other
// name.
func TestTheServicesImageIsPushed(t *testing.T) {
	c := Config{PushService: true}
	if err := c.checkRepository(Service); err != nil {
		t.Error(err)
	}
	if err := c.checkRepository("rackseed/node"); err == nil {
		t.Error("other images of the release can be pushed")
	}
	if err := (Config{}).checkRepository(Service); err == nil {
		t.Error("it can be pushed to the appliance, whose stick has its own")
	}
	if err := checkTag(Service, "v2"); err == nil || !strings.Contains(err.Error(), "push to rackseed/service") {
		t.Errorf("another tag: %v", err)
	}
	for name, want := range map[string]string{"rackseed/service": "service", "rackseed/service:latest": "service", "rackseed/service:v2": "", "lab/app": "lab/app:latest", "lab/app:v1": "lab/app:v1"} {
		if got := Ref(name); got != want {
			t.Errorf("%s is published under %q, want %q", name, got, want)
		}
	}
}

func TestRepositoryOf(t *testing.T) {
	for path, want := range map[string]string{
		"/v2/": "", "/v2/_catalog": "", "/v2/token": "", "/v2/a/manifests/v1": "a", "/v2/a/b/blobs/uploads/": "a/b",
		"/v2/a/blobs/b/manifests/v1": "a/blobs/b", "/v2/a/manifests/b/blobs/uploads/x": "a/manifests/b", "/v2/a/tags/list": "a",
	} {
		if got := repositoryOf(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestParseManifest(t *testing.T) {
	digest := `"digest":"` + digestOf("x") + `","size":1`
	config := `"config":{"mediaType":"a/b",` + digest + `}`
	for _, c := range []struct {
		name, text, sent string
		mediaType        string
		names            int
		refused          string
	}{
		{"an image", `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageManifest + `",` + config + `,"layers":[{` + digest + `},{` + digest + `}]}`, v1.MediaTypeImageManifest, v1.MediaTypeImageManifest, 3, ""},
		{"an image read back", `{"schemaVersion":2,` + config + `}`, "", v1.MediaTypeImageManifest, 1, ""},
		{"an image without a media type", `{"schemaVersion":2,` + config + `}`, v1.MediaTypeImageManifest, v1.MediaTypeImageManifest, 1, ""},
		{"an index", `{"schemaVersion":2,"manifests":[{` + digest + `}]}`, v1.MediaTypeImageIndex, v1.MediaTypeImageIndex, 1, ""},
		{"an empty index", `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageIndex + `","manifests":[]}`, "", v1.MediaTypeImageIndex, 0, ""},
		{"Docker's", `{"schemaVersion":2,"mediaType":"` + dockerManifest + `",` + config + `}`, dockerManifest, dockerManifest, 1, ""},
		{"Docker's list", `{"schemaVersion":2,"mediaType":"` + dockerList + `","manifests":[{` + digest + `}]}`, "", dockerList, 1, ""},
		{"a layer kept at its maker's", `{"schemaVersion":2,` + config + `,"layers":[{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","urls":["https://x.example"],` + digest + `}]}`, "", v1.MediaTypeImageManifest, 1, ""},
		{"Docker's without a media type", `{"schemaVersion":2,` + config + `}`, dockerManifest, "", 0, "has no mediaType"},
		{"a list as an image", `{"schemaVersion":2,"manifests":[]}`, v1.MediaTypeImageManifest, "", 0, "has no mediaType"},
		{"both", `{"schemaVersion":2,` + config + `,"manifests":[]}`, "", "", 0, "cannot be both"},
		{"another than it says", `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageManifest + `",` + config + `}`, v1.MediaTypeImageIndex, "", 0, "calls itself"},
		{"schema 1", `{"schemaVersion":1,"name":"a"}`, "", "", 0, "schemaVersion 1"},
		{"no config", `{"schemaVersion":2}`, "", "", 0, "no config"},
		{"an index without manifests of an image's type", `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageManifest + `","manifests":[]}`, "", "", 0, "no config"},
		{"another kind", `{"schemaVersion":2,"mediaType":"text/html"}`, "text/html", "", 0, "media type"},
		{"another digest", `{"schemaVersion":2,"config":{"digest":"sha512:00","size":1}}`, "", "", 0, "config: digest"},
		{"a path as digest", `{"schemaVersion":2,` + config + `,"layers":[{"digest":"sha256:../../x","size":1}]}`, "", "", 0, "layer 1: digest"},
		{"a size below nothing", `{"schemaVersion":2,"config":{"digest":"` + digestOf("x") + `","size":-1}}`, "", "", 0, "-1 bytes"},
		{"no JSON", `hello`, "", "", 0, "not JSON"},
		{"nothing", ``, "", "", 0, "not JSON"},
	} {
		m, err := parseManifest([]byte(c.text), c.sent)
		switch {
		case c.refused != "":
			if err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s: error %v, want one with %q", c.name, err, c.refused)
			}
		case err != nil || m.mediaType != c.mediaType || len(m.names) != c.names:
			t.Errorf("%s: %+v, %v", c.name, m, err)
		}
	}
}

// Whatever is taken from a client is read back as the same kind.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"`+digestOf("x")+`","size":1}}`), v1.MediaTypeImageManifest)
	f.Add([]byte(`{"schemaVersion":2,"manifests":[]}`), v1.MediaTypeImageIndex)
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"`+dockerList+`","manifests":[]}`), dockerList)
	f.Fuzz(func(t *testing.T, b []byte, sent string) {
		if sent == "" {
			return
		}
		m, err := parseManifest(b, sent)
		if err != nil {
			return
		}
		if again, err := parseManifest(b, ""); err != nil || again.mediaType != m.mediaType || m.mediaType != sent {
			t.Errorf("sent as %s, taken as %s, read back as %s (%v)", sent, m.mediaType, again.mediaType, err)
		}
	})
}
