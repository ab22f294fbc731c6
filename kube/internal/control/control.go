//go:build host

// Package control is a real control plane on loopback, for tests: etcd,
// kube-apiserver and the controller manager, with a cluster's own authorities.
package control

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/kube/core"
	"github.com/rackseed/rackseed/kube/pki"
	"github.com/rackseed/rackseed/services/freeport"
	"k8s.io/client-go/rest"
)

// Plane is the control plane of one cluster. Nothing of it runs yet but etcd.
type Plane struct {
	Secrets map[string][]byte // the cluster's, as pki.New makes them
	Server  string            // the API server's URL
	Address string            // its HOST:PORT
	t       *testing.T
	dir     string
	etcd    string // client URL
}

// Program is a program that an environment variable names.
func Program(t *testing.T, variable string) string {
	t.Helper()
	b := os.Getenv(variable)
	if b == "" {
		t.Fatalf("%s is not set: it names a program that build/modules makes", variable)
	}
	return b
}

// FreePort is a port of the loopback that nobody listens on.
func FreePort(t *testing.T) string {
	t.Helper()
	port, err := freeport.Find()
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(port)
}

// Process is a program that was started; its log is shown when the test fails.
type Process struct {
	t       *testing.T
	name    string
	log     string
	cmd     *exec.Cmd
	ended   chan error
	stopped bool
}

// Start starts a program; it is killed at the test's end, or by Stop.
func Start(t *testing.T, name, program string, args ...string) *Process {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), name+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{t: t, name: name, log: log.Name(), cmd: exec.Command(program, args...), ended: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(p.Stop)
	return p
}

// Stop kills it.
func (p *Process) Stop() {
	if p.stopped {
		return
	}
	p.stopped = true
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Errorf("%s had ended by itself: %v", p.name, err)
	}
	<-p.ended
	if p.t.Failed() {
		b, err := os.ReadFile(p.log)
		p.t.Logf("%s (error %v):\n%s", p.name, err, b[max(0, len(b)-4000):])
	}
}

// Signal sends it a signal.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
}

// Spawn starts a program of which only the end matters.
func Spawn(t *testing.T, name, program string, args ...string) (stop func()) {
	t.Helper()
	return Start(t, name, program, args...).Stop
}

// File writes a file that is the test's.
func (p *Plane) File(name string, b []byte) string {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// Kubeconfig is by which a user reaches the API server.
func (p *Plane) Kubeconfig(user string, groups ...string) []byte {
	p.t.Helper()
	return p.kubeconfig(p.Server, user, groups)
}

func (p *Plane) kubeconfig(url, user string, groups []string) []byte {
	p.t.Helper()
	b, err := pki.Kubeconfig(p.Secrets["pki/ca.crt"], p.Secrets["pki/ca.key"], time.Now(),
		pki.Client{Cluster: "lab", Server: url, User: user, Groups: groups, Lifetime: time.Hour})
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

// Client is a user's client.
func (p *Plane) Client(user string, groups ...string) *rest.RESTClient {
	p.t.Helper()
	return p.ClientAt(p.Server, user, groups...)
}

// ClientAt is a user's client at another URL than the API server's.
func (p *Plane) ClientAt(url, user string, groups ...string) *rest.RESTClient {
	p.t.Helper()
	client, err := core.FromFile(p.File("client-"+strings.ReplaceAll(user, ":", "-"), p.kubeconfig(url, user, groups)), "test")
	if err != nil {
		p.t.Fatal(err)
	}
	return client
}

// Kubeadm runs kubeadm and returns what it printed.
func Kubeadm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), Program(t, "RACKSEED_KUBERNETES"), append([]string{"kubeadm"}, args...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("kubeadm %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// New makes the control plane of a new cluster and starts its etcd.
func New(t *testing.T) *Plane {
	t.Helper()
	p := &Plane{t: t, dir: t.TempDir(), Address: "127.0.0.1:" + FreePort(t)}
	p.Server = "https://" + p.Address
	var err error
	if p.Secrets, err = pki.New(time.Now()); err != nil {
		t.Fatal(err)
	}
	for name, b := range p.Secrets {
		p.File(name, b)
	}
	kubeadm, err := config.Kubeadm(config.ControlPlane{
		Node:    config.Node{Name: "node-1", Address: netip.MustParseAddr("10.77.0.11")},
		Cluster: "lab", Service: netip.MustParseAddr("10.77.0.1"),
		PodSubnet: config.DefaultPodSubnet, ServiceSubnet: config.DefaultServiceSubnet,
	})
	if err != nil {
		t.Fatal(err)
	}
	kubeadm = []byte(strings.Replace(string(kubeadm), "clusterName:", "certificatesDir: "+p.PKI("")+"\nclusterName:", 1))
	if _, err := Kubeadm(t, "init", "phase", "certs", "all", "--config", p.File("kubeadm.yaml", kubeadm)); err != nil {
		t.Fatal(err)
	}
	client, peer := "http://127.0.0.1:"+FreePort(t), "http://127.0.0.1:"+FreePort(t)
	p.etcd = client
	Spawn(t, "etcd", Program(t, "RACKSEED_ETCD"), "--data-dir", filepath.Join(p.dir, "etcd"), "--listen-client-urls", client,
		"--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", "default="+peer, "--unsafe-no-fsync", "--log-level", "error")
	return p
}

// PKI is the path of a file of the cluster's PKI, as kubeadm names it.
func (p *Plane) PKI(name string) string { return filepath.Join(p.dir, "pki", name) }

// StartAPI starts the API server and waits until it says that it is ready: it
// answers some moments before, and does not know its own roles then.
func (p *Plane) StartAPI() (stop func()) {
	p.t.Helper()
	return p.APIAt(p.Address).Stop
}

// APIAt starts an API server of the cluster at an address (HOST:PORT) of the
// loopback, and waits as StartAPI does.
func (p *Plane) APIAt(address string) *Process {
	p.t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		p.t.Fatal(err)
	}
	process := Start(p.t, "kube-apiserver", Program(p.t, "RACKSEED_KUBERNETES"), "kube-apiserver", "--etcd-servers", p.etcd,
		"--bind-address=127.0.0.1", "--secure-port", port, "--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.96.0.0/16", "--client-ca-file", p.PKI("ca.crt"),
		"--tls-cert-file", p.PKI("apiserver.crt"), "--tls-private-key-file", p.PKI("apiserver.key"),
		"--service-account-key-file", p.PKI("sa.pub"), "--service-account-signing-key-file", p.PKI("sa.key"),
		"--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction", "--enable-bootstrap-token-auth")
	root := p.ClientAt("https://"+address, "root", "system:masters")
	Eventually(p.t, "API server", func(ctx context.Context) error {
		return root.Get().AbsPath("/readyz").Do(ctx).Error()
	})
	return process
}

// StartManager starts some of the controller manager's controllers.
func (p *Plane) StartManager(controllers ...string) {
	p.t.Helper()
	Spawn(p.t, "kube-controller-manager", Program(p.t, "RACKSEED_KUBERNETES"), "kube-controller-manager",
		"--kubeconfig", p.File("manager.conf", p.Kubeconfig("system:kube-controller-manager")),
		"--use-service-account-credentials", "--service-account-private-key-file", p.PKI("sa.key"),
		"--cluster-signing-cert-file", p.PKI("ca.crt"), "--cluster-signing-key-file", p.PKI("ca.key"),
		"--leader-elect=false", "--secure-port=0", "--allocate-node-cidrs", "--cluster-cidr=10.244.0.0/16",
		"--service-cluster-ip-range=10.96.0.0/16", "--controllers="+strings.Join(controllers, ","))
}

// Eventually tries until it succeeds; programs are starting.
func Eventually(t *testing.T, what string, try func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}
