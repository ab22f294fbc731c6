//go:build host

package registry

import (
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The Open Container Initiative's own test finds nothing wrong. Three things it
// is told that this registry lacks: SHA-512, since a blob has one name; the
// referrers API, in whose place clients keep a tag; and deleting, which it finds
// out by itself.
func TestConformance(t *testing.T) {
	programs := os.Getenv("RACKSEED_REGISTRY_CLIENTS")
	if programs == "" {
		t.Fatal("RACKSEED_REGISTRY_CLIENTS is not set: make test-host sets it to what the build made")
	}
	r := newDiskRig(t, Limits{})
	dir := t.TempDir()
	authority := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs, "conformance"))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+authority, "OCI_RESULTS_DIR="+dir, "OCI_VERSION=1.1",
		"OCI_REGISTRY="+strings.TrimPrefix(r.server.URL, "https://"), "OCI_TLS=enabled",
		"OCI_USERNAME=ann", "OCI_PASSWORD="+password, "OCI_DATA_SHA512=false", "OCI_API_REFERRER=false")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "OCI Conformance Result: Pass") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, api := range []string{"Blob chunked", "Blob get range", "Manifest put by tag", "Tag listing"} {
		if _, rest, _ := strings.Cut(string(out), "\n  "+api); !strings.HasSuffix(strings.SplitN(rest, "\n", 2)[0], " Pass") {
			t.Errorf("%s was not tried", api)
		}
	}
}
