package registry

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	ocidigest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/rackseed/rackseed/services/state"
)

var (
	emptyIndex = empty.Index
	versioned  = specs.Versioned{SchemaVersion: 2}
)

func parsed(d string) ocidigest.Digest { return ocidigest.Digest(d) }

func basic(name, secret string) header {
	return header{"Authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+secret))}
}

const manifestType = v1.MediaTypeImageManifest

// What is refused, and how it is said.
func TestRefusals(t *testing.T) {
	r := newRig(t, Limits{MaxBlob: 1 << 20})
	config, layer := "{}", "a layer"
	r.push("lab/app", config)
	r.push("lab/app", layer)
	m := v1.Manifest{Versioned: versioned, MediaType: manifestType, Config: desc(v1.MediaTypeEmptyJSON, config),
		Layers: []v1.Descriptor{desc("application/octet-stream", layer)}}
	good := marshal(t, m)
	missing, short := m, m
	missing.Layers = []v1.Descriptor{desc("application/octet-stream", "absent")}
	short.Layers = []v1.Descriptor{desc("application/octet-stream", layer)}
	short.Layers[0].Size++
	r.want(http.StatusCreated, "PUT", "/v2/lab/app/manifests/v1", good, withToken, header{"Content-Type": manifestType})
	large := strings.Repeat("x", 1<<20+1)

	for _, c := range []struct {
		name, method, path, body string
		contentType              string
		status                   int
		code, says               string
	}{
		{"an unknown tag", "GET", "/v2/lab/app/manifests/v2", "", "", 404, "MANIFEST_UNKNOWN", "lab/app:v2 is not published"},
		{"an unknown repository", "GET", "/v2/lab/none/tags/list", "", "", 404, "NAME_UNKNOWN", "lab/none"},
		{"an unknown manifest", "GET", "/v2/lab/app/manifests/" + digestOf("absent"), "", "", 404, "MANIFEST_UNKNOWN", digestOf("absent")},
		{"a blob as a manifest", "GET", "/v2/lab/app/manifests/" + digestOf(layer), "", "", 404, "MANIFEST_UNKNOWN", "no manifest but a blob"},
		{"an unknown blob", "GET", "/v2/lab/app/blobs/" + digestOf("absent"), "", "", 404, "BLOB_UNKNOWN", digestOf("absent")},
		{"a path as a digest", "GET", "/v2/lab/app/blobs/sha256:..%2f..%2fstate", "", "", 404, "UNKNOWN", ""},
		{"another kind of digest", "GET", "/v2/lab/app/blobs/sha512:" + strings.Repeat("0", 128), "", "", 404, "BLOB_UNKNOWN", ""},
		{"a bad name", "GET", "/v2/Lab/app/manifests/v1", "", "", 400, "NAME_INVALID", ""},
		{"deleting a tag", "DELETE", "/v2/lab/app/manifests/v1", "", "", 405, "UNSUPPORTED", "nothing is deleted"},
		{"deleting a manifest", "DELETE", "/v2/lab/app/manifests/" + digestOf(good), "", "", 405, "UNSUPPORTED", "nothing is deleted"},
		{"deleting a blob", "DELETE", "/v2/lab/app/blobs/" + digestOf(layer), "", "", 405, "UNSUPPORTED", "nothing is deleted"},
		{"referrers", "GET", "/v2/lab/app/referrers/" + digestOf(good), "", "", 404, "UNKNOWN", "referrers"},
		{"a manifest without its layer", "PUT", "/v2/lab/app/manifests/v2", marshal(t, missing), manifestType, 404, "MANIFEST_BLOB_UNKNOWN", "layer 1"},
		{"a manifest with a wrong size", "PUT", "/v2/lab/app/manifests/v2", marshal(t, short), manifestType, 400, "MANIFEST_INVALID", "has 7 bytes, not 8"},
		{"a manifest of another digest", "PUT", "/v2/lab/app/manifests/" + digestOf("x"), good, manifestType, 400, "DIGEST_INVALID", ""},
		{"a manifest under half a digest", "PUT", "/v2/lab/app/manifests/sha256:00", good, manifestType, 400, "DIGEST_INVALID", "neither a tag nor a digest"},
		{"a manifest under a long tag", "PUT", "/v2/lab/app/manifests/" + strings.Repeat("v", 121), good, manifestType, 400, "NAME_INVALID", "129 bytes"},
		{"a manifest that is too large", "PUT", "/v2/lab/app/manifests/v2", strings.Repeat(" ", 4<<20+1), manifestType, 413, "MANIFEST_INVALID", "over 4 MiB"},
		{"a manifest of other types", "PUT", "/v2/lab/app/manifests/v2", `{"schemaVersion":2,"subject":5}`, manifestType, 400, "MANIFEST_INVALID", ""},
		{"what is no manifest", "PUT", "/v2/lab/app/manifests/v2", "hello", manifestType, 400, "MANIFEST_INVALID", ""},
		{"a blob of other bytes", "POST", "/v2/lab/app/blobs/uploads/?digest=" + digestOf("good"), "evil", "", 400, "DIGEST_INVALID", "digest mismatch after 4 bytes"},
		{"a blob that is too large", "POST", "/v2/lab/app/blobs/uploads/?digest=" + digestOf(large), large, "", 413, "SIZE_INVALID", "may have 1 MiB"},
		{"an unknown upload", "PATCH", "/v2/lab/app/blobs/uploads/AAAA", "x", "", 404, "BLOB_UPLOAD_UNKNOWN", "begin again"},
		{"a token by POST", "POST", "/v2/token", "grant_type=password", "", 405, "UNSUPPORTED", "only GET"},
	} {
		a := r.ask(c.method, c.path, strings.NewReader(c.body), withToken, header{"Content-Type": c.contentType})
		code, says := a.error(t)
		if a.StatusCode != c.status || code != c.code || !strings.Contains(says, c.says) {
			t.Errorf("%s: %d %s: %s; want %d %s with %q", c.name, a.StatusCode, code, says, c.status, c.code, c.says)
		}
	}
	r.want(http.StatusNotFound, "GET", "/v2/lab/app/manifests/v2", "") // nothing of all that
	if r.blobs.Has("sha256:"+"x") || len(r.aside()) != 0 {
		t.Errorf("left aside: %v", r.aside())
	}
	if got := r.want(http.StatusOK, "GET", "/v2/lab/app/manifests/v1", "").body; got != good {
		t.Errorf("v1 is %s", got)
	}
}

// Everything that changes something needs an operator.
func TestChangesNeedAnOperator(t *testing.T) {
	r := newRig(t, Limits{})
	d := digestOf("x")
	for _, route := range [][2]string{
		{"GET", "/v2/"}, {"POST", "/v2/a/blobs/uploads/"}, {"POST", "/v2/a/blobs/uploads/?digest=" + d}, {"POST", "/v2/a/blobs/uploads/?mount=" + d + "&from=b"},
		{"PATCH", "/v2/a/blobs/uploads/AAAA"}, {"PUT", "/v2/a/blobs/uploads/AAAA?digest=" + d}, {"PUT", "/v2/a/manifests/v1"},
		{"DELETE", "/v2/a/manifests/v1"}, {"DELETE", "/v2/a/blobs/" + d}, {"DELETE", "/v2/a/blobs/uploads/AAAA"}, {"POST", "/v2/_catalog"},
	} {
		for who, h := range map[string]header{"nobody": {}, "anonymous": {"Authorization": "Bearer " + anonymous}, "empty": basic("", "")} {
			a := r.want(http.StatusUnauthorized, route[0], route[1], "", h)
			code, _ := a.error(t)
			ask := a.Header.Get("WWW-Authenticate")
			if code != "UNAUTHORIZED" || !strings.HasPrefix(ask, `Bearer realm="`+r.server.URL+`/v2/token",service="rackseed"`) {
				t.Errorf("%v by %s: %s, %s", route, who, code, ask)
			}
		}
	}
	ask := r.want(http.StatusUnauthorized, "POST", "/v2/lab/blobs/x/blobs/uploads/", "").Header.Get("WWW-Authenticate")
	if !strings.Contains(ask, `scope="repository:lab/blobs/x:pull,push"`) {
		t.Errorf("the scope is not that of the repository: %s", ask)
	}
	r.want(http.StatusOK, "GET", "/v2/", "", withToken)
	// What comes with the wrong credentials is not taken for anybody's.
	r.want(http.StatusUnauthorized, "GET", "/v2/_catalog", "", basic("ann", "wrong"))
	r.want(http.StatusUnauthorized, "GET", "/v2/_catalog", "", header{"Authorization": "Digest x"})
	// A cookie is no login here: another site's page could send it.
	r.want(http.StatusUnauthorized, "POST", "/v2/a/blobs/uploads/", "", header{"Cookie": "rackseed=" + token})
}

func TestToken(t *testing.T) {
	r := newRig(t, Limits{})
	login := func(h header) string {
		t.Helper()
		a := r.want(http.StatusOK, "GET", "/v2/token?service=rackseed&scope=repository:a:push", "", h)
		var got struct {
			Token       string `json:"token"`
			AccessToken string `json:"access_token"`
			ExpiresIn   int    `json:"expires_in"`
		}
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || got.Token == "" || got.AccessToken != got.Token || got.ExpiresIn != 3600 {
			t.Fatalf("%s: %v", a.body, err)
		}
		if a.Header.Get("Cache-Control") != "no-store" {
			t.Error("a token may be cached")
		}
		return got.Token
	}
	push := func(token string) int {
		t.Helper()
		return r.ask("POST", "/v2/a/blobs/uploads/", nil, header{"Authorization": "Bearer " + token}).StatusCode
	}
	if got := login(header{}); push(got) != http.StatusUnauthorized {
		t.Error("anybody's token is an operator's")
	}
	session := login(basic("ann", password))
	if session == password || push(session) != http.StatusAccepted || login(basic("ann", password)) != session {
		t.Error("a session is not known again")
	}
	if n := r.checks(); n != 1 {
		t.Errorf("the password was checked %d times", n)
	}
	if a := r.want(http.StatusUnauthorized, "GET", "/v2/token", "", basic("ann", "wrong")); a.Header.Get("WWW-Authenticate") != `Basic realm="rackseed"` {
		t.Errorf("asked for %q", a.Header.Get("WWW-Authenticate"))
	}
	r.pass(sessionLifetime)
	if push(session) != http.StatusUnauthorized {
		t.Error("a session does not end")
	}
	session = login(basic("ann", password))
	r.propose(state.UserPut{Name: "ann", PasswordHash: []byte("second")})
	if push(session) != http.StatusUnauthorized {
		t.Error("a session outlives its password")
	}
}

func TestSessionsAreBounded(t *testing.T) {
	s := newSessions()
	now := time.Now()
	for i := range 2 * maxSessions {
		s.add(fmt.Sprint(i), session{expires: now.Add(time.Duration(i) * time.Second)})
	}
	if _, newest := s.open[fmt.Sprint(2*maxSessions-1)]; len(s.open) != maxSessions || !newest {
		t.Errorf("%d sessions, the newest there: %v", len(s.open), newest)
	}
	if s.token("a", "bc") == s.token("ab", "c") || s.token("a", "b") == newSessions().token("a", "b") {
		t.Error("two sessions have one name")
	}
}

// A pull goes on where it broke off.
func TestRange(t *testing.T) {
	r := newRig(t, Limits{})
	d := r.push("lab/app", "0123456789")
	path := "/v2/lab/app/blobs/" + d
	for ask, want := range map[string]string{"bytes=0-": "0123456789", "bytes=4-": "456789", "bytes=2-3": "23", "bytes=9-100": "9"} {
		a := r.want(http.StatusPartialContent, "GET", path, "", header{"Range": ask})
		if a.body != want || !strings.HasSuffix(a.Header.Get("Content-Range"), "/10") {
			t.Errorf("%s: %q, %s", ask, a.body, a.Header.Get("Content-Range"))
		}
	}
	for _, ask := range []string{"bytes=-3", "bytes=0-1,4-5", "lines=1-2", "bytes=x-"} {
		if got := r.want(http.StatusOK, "GET", path, "", header{"Range": ask}).body; got != "0123456789" {
			t.Errorf("%s: %q", ask, got)
		}
	}
	for _, ask := range []string{"bytes=10-", "bytes=11-12"} {
		code, says := r.want(http.StatusRequestedRangeNotSatisfiable, "GET", path, "", header{"Range": ask}).error(t)
		if code != "RANGE_INVALID" || !strings.Contains(says, "has 10 bytes") {
			t.Errorf("%s: %s: %s", ask, code, says)
		}
	}
	a := r.want(http.StatusOK, "HEAD", path, "")
	if a.ContentLength != 10 || a.Header.Get("Accept-Ranges") != "bytes" || a.Header.Get("Docker-Content-Digest") != d {
		t.Errorf("head: %v", a.Header)
	}
	a = r.want(http.StatusOK, "GET", path, "")
	if a.Header.Get("Content-Type") != octets || a.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("what is anybody's may be taken for a page: %v", a.Header)
	}
}

// An upload that breaks off stands where it was, is seen by nobody, and goes on.
func TestBrokenUploadGoesOn(t *testing.T) {
	r := newRig(t, Limits{})
	content := strings.Repeat("0123456789", 100_000)
	location := r.want(http.StatusAccepted, "POST", "/v2/lab/app/blobs/uploads/", "", withToken).Header.Get("Location")

	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client := tlsClient(t, conn, r.server)
	fmt.Fprintf(client, "PATCH %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", location, token, len(content), content[:300_000])
	stands := func() string {
		return r.want(http.StatusNoContent, "GET", location, "", withToken).Header.Get("Range")
	}
	// While that request lives nobody else goes on.
	waitFor(t, func() bool {
		return r.ask("GET", location, nil, withToken).StatusCode == http.StatusRequestedRangeNotSatisfiable
	})
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return r.ask("GET", location, nil, withToken).StatusCode == http.StatusNoContent })
	if got := stands(); got != "0-299999" {
		t.Fatalf("the upload stands at %s", got)
	}
	r.want(http.StatusNotFound, "HEAD", "/v2/lab/app/blobs/"+digestOf(content[:300_000]), "")
	a := r.want(http.StatusRequestedRangeNotSatisfiable, "PATCH", location, content[:10], withToken, header{"Content-Range": "0-9"})
	if code, says := a.error(t); code != "RANGE_INVALID" || !strings.Contains(says, "stands at byte 300000") {
		t.Errorf("%s: %s", code, says)
	}
	r.want(http.StatusNotFound, "GET", strings.Replace(location, "lab/app", "lab/other", 1), "", withToken)
	r.want(http.StatusAccepted, "PATCH", location, content[300_000:500_000], withToken, header{"Content-Range": "300000-499999"})
	r.want(http.StatusCreated, "PUT", location+"?digest="+digestOf(content), content[500_000:], withToken, header{"Content-Range": "500000-999999"})
	if got := r.want(http.StatusOK, "GET", "/v2/lab/app/blobs/"+digestOf(content), "").body; got != content {
		t.Errorf("%d bytes", len(got))
	}
	r.want(http.StatusNotFound, "PATCH", location, "x", withToken)
}

// What a restart left half uploaded is gone, and its client is told to begin
// again.
func TestRestartEndsUploads(t *testing.T) {
	r := newDiskRig(t, Limits{})
	location := r.want(http.StatusAccepted, "POST", "/v2/lab/app/blobs/uploads/", "", withToken).Header.Get("Location")
	r.want(http.StatusAccepted, "PATCH", location, "half", withToken)
	if len(r.aside()) != 1 {
		t.Fatalf("aside: %v", r.aside())
	}
	r.restart()
	if code, _ := r.want(http.StatusNotFound, "PATCH", location, "rest", withToken).error(t); code != "BLOB_UPLOAD_UNKNOWN" {
		t.Error(code)
	}
	if len(r.aside()) != 0 {
		t.Errorf("aside: %v", r.aside())
	}
}

// A blob whose digest is not that of its bytes is refused at the end of its
// upload, and nothing of it is kept.
func TestMismatch(t *testing.T) {
	r := newRig(t, Limits{})
	location := r.want(http.StatusAccepted, "POST", "/v2/lab/app/blobs/uploads/", "", withToken).Header.Get("Location")
	r.want(http.StatusAccepted, "PATCH", location, "evil", withToken)
	a := r.want(http.StatusBadRequest, "PUT", location+"?digest="+digestOf("good"), "", withToken)
	if code, says := a.error(t); code != "DIGEST_INVALID" || !strings.Contains(says, "nothing was kept") {
		t.Errorf("%s: %s", code, says)
	}
	for _, content := range []string{"evil", "good"} {
		r.want(http.StatusNotFound, "HEAD", "/v2/lab/app/blobs/"+digestOf(content), "")
	}
	if len(r.aside()) != 0 {
		t.Errorf("aside: %v", r.aside())
	}
}

func TestLimits(t *testing.T) {
	t.Run("free space", func(t *testing.T) {
		r := newRig(t, Limits{KeepFree: 1 << 60})
		for _, c := range [][2]string{{"POST", "/v2/a/blobs/uploads/"}, {"POST", "/v2/a/blobs/uploads/?digest=" + digestOf("x")}, {"PUT", "/v2/a/manifests/v1"}} {
			code, says := r.want(http.StatusInsufficientStorage, c[0], c[1], `{"schemaVersion":2,"manifests":[]}`, withToken,
				header{"Content-Type": v1.MediaTypeImageIndex}).error(t)
			if code != "DENIED" || !strings.Contains(says, "kept for the boot service itself") {
				t.Errorf("%v: %s: %s", c, code, says)
			}
		}
	})
	t.Run("free space, of a part whose length is known", func(t *testing.T) {
		r := newRig(t, Limits{MaxBlob: 1 << 62})
		free, err := r.blobs.Free()
		if err != nil {
			t.Fatal(err)
		}
		r.registry.uploads.limits.KeepFree = free / 2
		w, err := r.registry.uploads.begin("a")
		if err != nil {
			t.Fatal(err)
		}
		id := w.ID()
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.registry.uploads.resume(t.Context(), "a", id, 0, free); err == nil || !strings.Contains(err.Error(), "do not fit") {
			t.Errorf("%v", err)
		}
		if len(r.aside()) != 0 {
			t.Errorf("aside: %v", r.aside())
		}
	})
	t.Run("size without a length", func(t *testing.T) {
		r := newRig(t, Limits{MaxBlob: 1000})
		for method, query := range map[string]string{"PATCH": "", "PUT": "?digest=" + digestOf("x")} {
			location := r.want(http.StatusAccepted, "POST", "/v2/a/blobs/uploads/", "", withToken).Header.Get("Location")
			a := r.ask(method, location+query, struct{ io.Reader }{strings.NewReader(strings.Repeat("x", 1001))}, withToken)
			if code, says := a.error(t); a.StatusCode != http.StatusRequestEntityTooLarge || code != "SIZE_INVALID" {
				t.Errorf("%s: %s %s: %s", method, a.Status, code, says)
			}
			r.want(http.StatusNotFound, "GET", location, "", withToken)
		}
		if len(r.aside()) != 0 {
			t.Errorf("aside: %v", r.aside())
		}
	})
	t.Run("uploads", func(t *testing.T) {
		r := newRig(t, Limits{Uploads: 2})
		first := r.want(http.StatusAccepted, "POST", "/v2/a/blobs/uploads/", "", withToken).Header.Get("Location")
		r.want(http.StatusAccepted, "POST", "/v2/a/blobs/uploads/", "", withToken)
		a := r.want(http.StatusTooManyRequests, "POST", "/v2/a/blobs/uploads/", "", withToken)
		if code, _ := a.error(t); code != "TOOMANYREQUESTS" || a.Header.Get("Retry-After") == "" {
			t.Errorf("%s, %v", code, a.Header)
		}
		r.want(http.StatusCreated, "PUT", first+"?digest="+digestOf("x"), "x", withToken)
		r.want(http.StatusAccepted, "POST", "/v2/a/blobs/uploads/", "", withToken)
	})
	t.Run("tags", func(t *testing.T) {
		r := newRig(t, Limits{Tags: 1})
		r.push("a", "{}")
		m := marshal(t, v1.Manifest{Versioned: versioned, MediaType: manifestType, Config: desc(v1.MediaTypeEmptyJSON, "{}")})
		for range 2 {
			r.want(http.StatusCreated, "PUT", "/v2/a/manifests/v1", m, withToken, header{"Content-Type": manifestType})
		}
		code, says := r.want(http.StatusForbidden, "PUT", "/v2/a/manifests/v2", m, withToken, header{"Content-Type": manifestType}).error(t)
		if code != "DENIED" || !strings.Contains(says, "push to one of them") {
			t.Errorf("%s: %s", code, says)
		}
	})
	t.Run("requests", func(t *testing.T) {
		r := newRig(t, Limits{RequestsPerSource: 1})
		location := r.want(http.StatusAccepted, "POST", "/v2/a/blobs/uploads/", "", withToken).Header.Get("Location")
		hold, send := io.Pipe()
		ended := make(chan reply)
		go func() { ended <- r.ask("PATCH", location, hold, withToken) }()
		if _, err := send.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return r.ask("GET", "/v2/_catalog", nil).StatusCode == http.StatusTooManyRequests })
		if err := send.Close(); err != nil {
			t.Fatal(err)
		}
		if a := <-ended; a.StatusCode != http.StatusAccepted {
			t.Error(a.Status)
		}
		waitFor(t, func() bool { return r.ask("GET", "/v2/_catalog", nil).StatusCode == http.StatusOK })
	})
}

func TestFiles(t *testing.T) {
	r := newRig(t, Limits{})
	node := r.artifact("node", "root.erofs", "a root file system")
	put := func(repo, content, mediaType string) string {
		t.Helper()
		r.want(http.StatusCreated, "PUT", "/v2/"+repo+"/manifests/"+digestOf(content), content, withToken, header{"Content-Type": mediaType})
		return content
	}
	r.push("a", "a config")
	r.push("a", "a layer")
	image := put("a", marshal(t, v1.Manifest{Versioned: versioned, MediaType: manifestType, Config: desc(v1.MediaTypeImageConfig, "a config"),
		Layers: []v1.Descriptor{desc(v1.MediaTypeImageLayer, "a layer"), desc(v1.MediaTypeImageLayer, "a layer")}}), manifestType)
	index := put("a", marshal(t, v1.Index{Versioned: versioned, MediaType: v1.MediaTypeImageIndex,
		Manifests: []v1.Descriptor{desc(manifestType, image), desc(manifestType, node)}}), v1.MediaTypeImageIndex)
	for content, want := range map[string]string{
		node:  "root.erofs 18;",
		image: "config 8;layer 1 7;",
		index: "manifest 1: config 8;manifest 1: layer 1 7;manifest 2: root.erofs 18;",
	} {
		files, err := Files(r.blobs, digestOf(content))
		var got strings.Builder
		for _, f := range files {
			fmt.Fprintf(&got, "%s %d;", f.Name, f.Size)
		}
		if err != nil || got.String() != want {
			t.Errorf("%q, %v; want %q", got.String(), err, want)
		}
	}
	if _, err := Files(r.blobs, digestOf("a layer")); err == nil {
		t.Error("a layer has files")
	}
}

func TestMount(t *testing.T) {
	r := newRig(t, Limits{})
	d := r.push("lab/app", "a layer")
	for _, from := range []string{"&from=lab/app", ""} {
		r.want(http.StatusCreated, "POST", "/v2/lab/other/blobs/uploads/?mount="+d+from, "", withToken)
		r.want(http.StatusAccepted, "POST", "/v2/lab/other/blobs/uploads/?mount="+digestOf("absent")+from, "", withToken)
	}
	r.want(http.StatusForbidden, "POST", "/v2/rackseed/node/blobs/uploads/?mount="+d+"&from=lab/app", "", withToken)
}

// A client that attaches something to an image is not told that this registry
// lists it, and so keeps the list itself.
func TestSubject(t *testing.T) {
	r := newRig(t, Limits{})
	r.push("a", "{}")
	subject := desc(manifestType, "absent")
	m := marshal(t, v1.Manifest{Versioned: versioned, MediaType: manifestType, ArtifactType: "a/b", Config: desc(v1.MediaTypeEmptyJSON, "{}"), Subject: &subject})
	a := r.want(http.StatusCreated, "PUT", "/v2/a/manifests/"+digestOf(m), m, withToken, header{"Content-Type": manifestType})
	if got := a.Header.Get("OCI-Subject"); got != "" {
		t.Errorf("OCI-Subject: %s", got)
	}
}

func open(u *uploads) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.all)
}

// An upload that nobody goes on with is removed; one that is being written to
// is not.
func TestAbandonedUploads(t *testing.T) {
	r := newRig(t, Limits{Idle: time.Hour})
	synctest.Test(t, func(t *testing.T) {
		u := &uploads{limits: r.registry.Limits, blobs: r.blobs, log: r.registry.Logger, all: map[string]*upload{}}
		abandoned, err := u.begin("a")
		if err != nil {
			t.Fatal(err)
		}
		slow, err := u.begin("a")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := abandoned.ReadFrom(bytes.NewReader([]byte("half"))); err != nil {
			t.Fatal(err)
		}
		if err := abandoned.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour - time.Second)
		synctest.Wait()
		if open(u) != 2 {
			t.Errorf("%d uploads before their time is over", open(u))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, err := u.resume(t.Context(), "a", abandoned.ID(), -1, 0); err == nil || open(u) != 1 || len(r.aside()) != 1 {
			t.Errorf("the abandoned one: %v; %d uploads, aside %v", err, open(u), r.aside())
		}
		if err := slow.Close(); err != nil {
			t.Fatal(err)
		}
		again, err := u.resume(t.Context(), "a", slow.ID(), 0, 4)
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if open(u) != 0 || len(r.aside()) != 0 {
			t.Errorf("%d uploads, aside %v", open(u), r.aside())
		}
	})
}

// Who asks where an upload stands does not make a part fail that comes at that
// instant; who still writes does.
func TestUploadIsWaitedFor(t *testing.T) {
	r := newRig(t, Limits{})
	synctest.Test(t, func(t *testing.T) {
		u := &uploads{limits: r.registry.Limits, blobs: r.blobs, log: r.registry.Logger, all: map[string]*upload{}}
		asks, err := u.begin("a")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(patience / 2)
			if err := asks.Close(); err != nil {
				t.Error(err)
			}
		}()
		writes, err := u.resume(t.Context(), "a", asks.ID(), 0, 4)
		if err != nil {
			t.Fatalf("a part that came while it was asked where the upload stands: %v", err)
		}
		if _, err := u.resume(t.Context(), "a", asks.ID(), 0, 4); err == nil || !strings.Contains(err.Error(), "still writing") {
			t.Errorf("two write to one upload: %v", err)
		}
		if err := writes.Cancel(); err != nil {
			t.Fatal(err)
		}
	})
}
