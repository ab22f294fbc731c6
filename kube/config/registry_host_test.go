//go:build host

package config

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/rackseed/rackseed/services/identity"
	"github.com/rackseed/rackseed/services/ignition"
	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/replica"
	"github.com/rackseed/rackseed/services/state"
)

const (
	operatorToken = "rs_a token of ann for this test"
	bobsPassword  = "correct horse battery"
)

// service is a live boot service.
type service struct {
	t    *testing.T
	data string
	at   string // host:port of the people's server
	stop func()
}

// start runs a boot service on loopback, with the artifact "node" in images.
func start(t *testing.T, data, images string) *service {
	t.Helper()
	hash := sha256.Sum256([]byte(operatorToken))
	site := filepath.Join(t.TempDir(), "site.yaml")
	write(t, site, fmt.Appendf(nil, `version: 1
name: lab
serviceAddress: 192.0.2.1
links:
  - interface: eth0
    address: 192.0.2.2/24
operators:
  - name: ann
    tokenSHA256: %x
`, hash))
	ctx, cancel := context.WithCancel(t.Context())
	out, told := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := replica.Run(ctx, replica.Config{
			Data: data, Images: []string{images}, Site: site, Dev: true, HTTPS: "127.0.0.1:0", HTTP: "127.0.0.1:0",
			Out: told, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		})
		ended <- errors.Join(err, told.Close())
	}()
	s := &service{t: t, data: data}
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(s.stop)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if url, ok := strings.CutPrefix(lines.Text(), "Console:"); ok {
			s.at = strings.TrimPrefix(strings.TrimSpace(url), "https://")
			break
		}
	}
	go io.Copy(io.Discard, out)
	if s.at == "" {
		t.Fatal("the boot service did not say where its console is")
	}
	return s
}

// setup makes the user bob, as the first person does.
func (s *service) setup() {
	s.t.Helper()
	code, err := os.ReadFile(filepath.Join(s.data, "setup-code"))
	if err != nil {
		s.t.Fatal(err)
	}
	body, err := json.Marshal(map[string]string{"code": strings.TrimSpace(string(code)), "name": "bob", "password": bobsPassword})
	if err != nil {
		s.t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	a, err := client.Post("https://"+s.at+"/api/setup", "application/json", bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := a.Body.Close(); err != nil || a.StatusCode != http.StatusOK {
		s.t.Fatalf("setup: %s, %v", a.Status, err)
	}
}

// certificate is what the service shows, as PEM.
func (s *service) certificate() []byte {
	s.t.Helper()
	c, err := tls.Dial("tcp", s.at, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		s.t.Error(err)
	}
	return pemOf(c.ConnectionState().PeerCertificates[0].Raw)
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// nodeFiles are what a node gets from Ignition, of a service that has ended.
func nodeFiles(t *testing.T, data string) []ignition.File {
	t.Helper()
	keys, err := keyring.Open(filepath.Join(data, "keyring"), keyring.Protectors(data)...)
	if err != nil {
		t.Fatal(err)
	}
	store, err := state.Open(state.Config{Dir: filepath.Join(data, "state"), ID: id(t, data), Now: time.Now, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := store.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	files, err := Registry{}.Contribute(ignition.Input{Secrets: store.View().Secret})
	if err = errors.Join(err, store.Close()); err != nil {
		t.Fatal(err)
	}
	return files
}

// certs puts a node's files into a folder, with the port of this service, which
// for a node is 443.
func (s *service) certs(files []ignition.File) string {
	s.t.Helper()
	_, port, err := net.SplitHostPort(s.at)
	if err != nil {
		s.t.Fatal(err)
	}
	dir := s.t.TempDir()
	for _, f := range files {
		content := strings.ReplaceAll(string(f.Contents), CertsDir, dir)
		content = strings.ReplaceAll(content, "https://"+ignition.RegistryHost, "https://"+net.JoinHostPort(ignition.RegistryHost, port))
		write(s.t, filepath.Join(dir, strings.TrimPrefix(f.Path, CertsDir)), []byte(content))
	}
	return dir
}

func id(t *testing.T, data string) string {
	t.Helper()
	own, err := identity.Load(filepath.Join(data, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	return own.ID
}

// built is a program that RACKSEED_… names.
func built(t *testing.T, variable, name string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		t.Fatalf("%s is not set: make test-host sets it to what the build made", variable)
	}
	return filepath.Join(path, name)
}

// output runs a program and answers what it prints.
func output(t *testing.T, env []string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(name), strings.Join(args, " "), err, out.String(), errs.String())
	}
	return strings.TrimSpace(out.String()), err
}

// containerd is the node image's daemon on a root of its own, with names as a
// node's /etc/hosts has them. It answers how to call ctr.
func containerd(t *testing.T) func(args ...string) (string, error) {
	t.Helper()
	// A socket's path is at most 107 bytes.
	dir, err := os.MkdirTemp("", "rs-ctd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	hosts := write(t, filepath.Join(dir, "hosts"), []byte("127.0.0.1 localhost\n127.0.0.1 "+ignition.RegistryHost+"\n"))
	socket := filepath.Join(dir, "s")
	// What looks at the host is left out; what pulls is as on a node.
	file := write(t, filepath.Join(dir, "config.toml"), fmt.Appendf(nil, `version = 3
root = '%[1]s/root'
state = '%[1]s/state'
disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.cri.v1.images', 'io.containerd.cri.v1.runtime', 'io.containerd.nri.v1.nri']
[grpc]
address = '%[2]s'
[ttrpc]
address = '%[2]s.ttrpc'
`, dir, socket))
	cmd := exec.Command("sh", "-c", `mount --bind "$1" /etc/hosts && exec "$2" --config "$3"`, "sh", hosts, built(t, "RACKSEED_CONTAINERD", "containerd"), file)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		<-ended
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if conn, err := net.Dial("unix", socket); err == nil {
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			break
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("containerd ended: %v", err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("containerd did not open its socket within a minute")
		}
	}
	return func(args ...string) (string, error) {
		return output(t, nil, built(t, "RACKSEED_CONTAINERD", "ctr"), append([]string{"--address", socket, "--namespace", "k8s.io"}, args...)...)
	}
}

// Images that a person pushes with crane are pulled by containerd as a node
// does, after a restart of the boot service, and containerd pushes too.
func TestRegistryServesNodesAndPeople(t *testing.T) {
	data, images, app := t.TempDir(), t.TempDir(), t.TempDir()
	kernel := bytes.Repeat([]byte("kernel"), 100_000)
	node := artifact(t, images, "node", "vmlinuz", kernel)
	digest := container(t, app)

	s := start(t, data, images)
	s.setup()
	// As on a laptop: by the address, with the certificate as authority.
	docker := t.TempDir()
	certificate := s.certificate()
	env := []string{"DOCKER_CONFIG=" + docker, "SSL_CERT_FILE=" + write(t, filepath.Join(docker, "console.crt"), certificate)}
	crane := func(args ...string) string {
		t.Helper()
		out, err := output(t, env, built(t, "RACKSEED_REGISTRY_CLIENTS", "crane"), args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	address := s.at
	if _, err := output(t, env, built(t, "RACKSEED_REGISTRY_CLIENTS", "crane"), "push", app, address+"/lab/app:v1"); err == nil || !strings.Contains(err.Error(), "pushing needs an operator") {
		t.Errorf("a stranger's push: %v", err)
	}
	crane("auth", "login", "-u", "bob", "-p", bobsPassword, address)
	crane("push", app, address+"/lab/app:v1")
	if got := crane("digest", address+"/lab/app:v1"); got != digest {
		t.Errorf("pushed %s, the registry has %s", digest, got)
	}
	// What came with the release, by tag and digest.
	for _, ref := range []string{":latest", "@" + node} {
		if got := crane("digest", address+"/rackseed/node"+ref); got != node {
			t.Errorf("rackseed/node%s is %s, not %s", ref, got, node)
		}
	}
	oci := filepath.Join(t.TempDir(), "node")
	crane("pull", "--format=oci", address+"/rackseed/node:latest", oci)
	sum := sha256.Sum256(kernel)
	if got, err := os.ReadFile(filepath.Join(oci, "blobs", "sha256", hex.EncodeToString(sum[:]))); err != nil || !bytes.Equal(got, kernel) {
		t.Errorf("the kernel was pulled as %d bytes, %v", len(got), err)
	}
	if got := crane("catalog", address); got != "lab/app\nrackseed/node" {
		t.Errorf("repositories: %q", got)
	}
	s.stop()

	files := nodeFiles(t, data)
	if !bytes.Equal(files[0].Contents, certificate) {
		t.Errorf("nodes trust\n%s, the service shows\n%s", files[0].Contents, certificate)
	}
	s = start(t, data, images)
	dir := s.certs(files)
	ctr := containerd(t)
	name := ignition.RegistryHost + "/lab/app:"
	if out, err := ctr("images", "pull", "--hosts-dir", dir, name+"v1"); err != nil {
		t.Fatal(err, out)
	}
	if out, err := ctr("images", "list", "name=="+name+"v1"); err != nil || !strings.Contains(out, digest) {
		t.Errorf("containerd has %s, %v; wanted %s", out, err, digest)
	}
	if out, err := ctr("images", "tag", name+"v1", name+"v2"); err != nil {
		t.Fatal(err, out)
	}
	if out, err := ctr("images", "push", "--hosts-dir", dir, name+"v2"); err == nil {
		t.Errorf("containerd pushed without credentials: %s", out)
	}
	if out, err := ctr("images", "push", "--hosts-dir", dir, "--user", "ann:"+operatorToken, name+"v2"); err != nil {
		t.Fatal(err, out)
	}
	if got := crane("digest", s.at+"/lab/app:v2"); got != digest {
		t.Errorf("containerd pushed %s, want %s", got, digest)
	}
	// With the wrong certificate nothing is pulled.
	stranger := httptest.NewTLSServer(nil)
	stranger.Close()
	write(t, filepath.Join(dir, ignition.RegistryHost, "ca.crt"), pemOf(stranger.Certificate().Raw))
	if out, err := ctr("images", "pull", "--hosts-dir", dir, name+"v2"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("pulled from a service that is not the pinned one: %s, %v", out, err)
	}
}

// The node image's containerd looks for registries' settings where Ignition
// puts them.
func TestContainerdOfNodeImage(t *testing.T) {
	config, err := os.ReadFile("../../images/node/files/etc/containerd/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	// Without what another machine has to have in /etc.
	file := write(t, filepath.Join(t.TempDir(), "config.toml"), bytes.Replace(config, []byte("/etc/containerd/conf.d"), []byte(t.TempDir()), 1))
	out, err := output(t, nil, built(t, "RACKSEED_CONTAINERD", "containerd"), "--config", file, "config", "dump")
	if err != nil {
		t.Fatal(err)
	}
	_, images, _ := strings.Cut(out, "[plugins.'io.containerd.cri.v1.images'.registry]")
	if registry, _, _ := strings.Cut(images, "\n\n"); !strings.Contains(registry, "config_path = '"+CertsDir+"'") {
		t.Errorf("containerd looks for registries' settings elsewhere:\n%s", registry)
	}
}

// artifact writes a layout with one artifact of one file, as the ISO has.
func artifact(t *testing.T, dir, ref, file string, content []byte) (digest string) {
	t.Helper()
	image, err := mutate.Append(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.oci.empty.v1+json"),
		mutate.Addendum{Layer: static.NewLayer(content, "application/octet-stream"), Annotations: map[string]string{"org.opencontainers.image.title": file}})
	if err != nil {
		t.Fatal(err)
	}
	return save(t, dir, image, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": ref}))
}

// container writes a layout with one container image.
func container(t *testing.T, dir string) (digest string) {
	t.Helper()
	image := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	image = mutate.ConfigMediaType(image, types.OCIConfigJSON)
	for i := range 3 {
		var layer bytes.Buffer
		w := tar.NewWriter(&layer)
		content := bytes.Repeat([]byte{byte(i)}, 1<<20)
		err := w.WriteHeader(&tar.Header{Name: fmt.Sprint("file", i), Mode: 0o644, Size: int64(len(content))})
		if err == nil {
			_, err = w.Write(content)
		}
		if err = errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		if image, err = mutate.AppendLayers(image, static.NewLayer(layer.Bytes(), types.OCIUncompressedLayer)); err != nil {
			t.Fatal(err)
		}
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	if image, err = mutate.ConfigFile(image, config); err != nil {
		t.Fatal(err)
	}
	return save(t, dir, image)
}

func save(t *testing.T, dir string, image ggcr.Image, options ...layout.Option) string {
	t.Helper()
	to, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := to.AppendImage(image, options...); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}
