package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/kube/endpoint"
	"github.com/rackseed/rackseed/kube/pki"
	"github.com/rackseed/rackseed/kube/podnet"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

// node is an installed node in a folder, whose programs are shell scripts.
type node struct {
	t    *testing.T
	root string
	s    *service
}

func newNode(t *testing.T) *node {
	n := &node{t, t.TempDir(), newService(t)}
	n.role(machine.RoleControlPlane)
	n.write(bootIDFile, "boot-1\n")
	n.write(cmdlineFile, "root=PARTUUID=x rackseed.slot=b\n")
	n.write(networkState, "OPER_STATE=routable\nADDRESS_STATE=routable\n")
	n.write(wire.PathAuthorizedKeys, string(wire.AuthorizedKeys(nil)))
	n.write(config.KubeadmPath, "kind: InitConfiguration\n")
	n.program("ctr", "exit 0")
	n.program("journalctl", `echo "E1124 12:00:00.000000 1 a.go:2] the $4 is sad"`)
	return n
}

// testAddress is the node's.
var testAddress = netip.MustParsePrefix("10.77.0.11/24")

func (n *node) role(role machine.Role) {
	n.t.Helper()
	b, err := json.Marshal(wire.NodeConfig{URL: n.s.URL, Machine: "m-1", Name: "node-1", Role: role, Address: testAddress, KeySeed: testSeed})
	if err != nil {
		n.t.Fatal(err)
	}
	n.write(wire.PathNodeConfig, string(b))
}

func (n *node) write(path, text string) {
	n.t.Helper()
	file := filepath.Join(n.root, path)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) program(name, script string) {
	n.t.Helper()
	// A child that another test starts meanwhile would have it open for writing, and it
	// would be "text file busy" (https://go.dev/issue/22315).
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	n.write("bin/"+name, "#!/bin/sh\n"+script+"\n")
	if err := os.Chmod(filepath.Join(n.root, "bin", name), 0o755); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) read(path string) string {
	b, err := os.ReadFile(filepath.Join(n.root, path))
	if err != nil {
		n.t.Error(err)
	}
	return string(b)
}

// anywhere is an agent's endpoint at a port that is free, which asks nobody.
func anywhere(a *agent) *endpoint.Endpoint {
	return endpoint.New(endpoint.Config{Listen: "127.0.0.1:0", File: a.host.path(serversFile), Log: quiet()})
}

// boot starts an agent; stop ends it as SIGTERM does.
func (n *node) boot() (stop func(), marked, joined chan struct{}) {
	n.t.Helper()
	a, err := newAgent(n.root, quiet())
	if err != nil {
		n.t.Fatal(err)
	}
	marked = make(chan struct{})
	a.commands.path = filepath.Join(n.root, "bin") + ":/usr/bin:/bin"
	a.commands.env = []string{"ROOT=" + n.root}
	a.markGood = func() error { close(marked); return nil }
	a.setRoutes = func([]podnet.Route) error { return nil }
	a.setMasquerade = func(context.Context, podSubnet) error { return nil }
	a.endpoint = anywhere(a)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.run(ctx) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
		done <- nil
	}
	n.t.Cleanup(stop)
	return stop, marked, a.joined
}

func (n *node) events() []wire.NodeEvent {
	var events []wire.NodeEvent
	for _, r := range n.s.events {
		events = append(events, r.Event)
	}
	return events
}

func (n *node) untilEvents(want ...wire.NodeEvent) {
	n.t.Helper()
	n.s.until(fmt.Sprint(want), func() bool { return slices.Equal(n.events(), want) })
}

const goodKubeadm = `echo "$@" > "$ROOT/arguments"
mkdir -p "$ROOT/etc/kubernetes" "$ROOT/var/lib/etcd/member"
echo "[certs] Using token: abcdef.0123456789abcdef"
echo "[done]" >&2`

func TestFirstControlPlane(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.program("kubeadm", goodKubeadm)
	n.s.order = wire.NodeOrder{Kind: wire.NodeInit, Intent: "i-1"}
	stop, marked, joined := n.boot()
	<-marked
	n.untilEvents(wire.NodeBooted, wire.NodeJoining, wire.NodeJoined)
	<-joined
	n.s.until("kubeadm's lines", func() bool { return len(n.s.lines["node-boot-1"]) == 2 })
	want := []string{"[certs] Using token: abcdef.****************", "[done]"}
	if got := n.s.lines["node-boot-1"]; !slices.Equal(got, want) {
		t.Errorf("output %q", got)
	}
	if got := n.s.events[0]; got.Slot != "b" || got.BootID != "boot-1" || got.Number != 1 {
		t.Errorf("first report %+v", got)
	}
	stop()
	wantArgs := strings.Join(initArgs(stepInit, filepath.Join(n.root, config.KubeadmPath)), " ") + "\n"
	if got := n.read("arguments"); got != wantArgs {
		t.Errorf("kubeadm %s", got)
	}

	// Restarted in the same boot, and rebooted: kubeadm never runs again, whatever
	// the order says.
	n.program("kubeadm", `echo ran > "$ROOT/again"`)
	stop, _, joined = n.boot()
	<-joined
	stop()
	n.write(bootIDFile, "boot-2\n")
	stop, _, joined = n.boot()
	<-joined
	n.untilEvents(wire.NodeBooted, wire.NodeJoining, wire.NodeJoined, wire.NodeBooted)
	stop()
	if _, err := os.Stat(filepath.Join(n.root, "again")); err == nil {
		t.Error("kubeadm ran on a node that had joined")
	}
	if got := n.read(doneFile); got != `{"reported":true}` {
		t.Errorf("done-mark %s", got)
	}
}

// TestJoinedIsToldAfterAPowerLoss: kubeadm had ended, nobody knew.
func TestJoinedIsToldAfterAPowerLoss(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.write(doneFile, `{"reported":false}`)
	n.boot()
	n.untilEvents(wire.NodeBooted, wire.NodeJoined)
	if n.s.ordered != 0 {
		t.Error("it asked for an order")
	}
}

func TestKubeadmFails(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.program("kubeadm", "echo 'error: the disk is full'; exit 1")
	n.s.order = wire.NodeOrder{Kind: wire.NodeInit}
	n.boot()
	n.untilEvents(wire.NodeBooted, wire.NodeJoining, wire.NodeFailed)
	text := n.s.events[2].Text
	for _, part := range []string{"kubeadm", "exit status 1", "the disk is full", "tried again"} {
		if !strings.Contains(text, part) {
			t.Errorf("the report does not say %q: %s", part, text)
		}
	}
	n.s.until("the digest", func() bool { return len(n.s.lines["node-boot-1"]) == 3 })
	if got := n.s.lines["node-boot-1"][1]; !strings.HasPrefix(got, "kubelet: E1124") {
		t.Errorf("digest %q", got)
	}
}

// TestInterruptedInitIsResumed: the power went while kubeadm wrote files.
func TestInterruptedInitIsResumed(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.program("kubeadm", goodKubeadm)
	n.s.order = wire.NodeOrder{Kind: wire.NodeInit}
	secrets, err := pki.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	find := func(name string) ([]byte, bool) { b, ok := secrets[name]; return b, ok }
	admin, err := pki.Admin(find, "lab", "https://10.77.0.1:6443", "ann", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	whole := map[string]string{
		adminConf:                       string(admin),
		kubernetes + "/pki/ca.crt":      string(secrets["pki/ca.crt"]),
		kubernetes + "/pki/etcd/ca.key": "", // broken, but not kubeadm's to make again
		"/var/lib/etcd/member/snap/db":  "data",
	}
	torn := map[string]string{
		kubeletConf:                         "",
		kubernetes + "/scheduler.conf":      string(admin)[:100],
		kubernetes + "/pki/apiserver.crt":   string(secrets["pki/ca.crt"])[:100],
		kubernetes + "/pki/etcd/server.key": "\x00\x00\x00",
		kubeletPair + ".key":                "",
	}
	for _, files := range []map[string]string{whole, torn} {
		for path, text := range files {
			n.write(path, text)
		}
	}
	n.program("systemctl", `echo "$@" > "$ROOT/systemctl"`)
	n.boot()
	n.untilEvents(wire.NodeBooted, wire.NodeJoining, wire.NodeJoined)
	if got := n.read("arguments"); !strings.Contains(got, "--skip-phases preflight,show-join-command") {
		t.Errorf("kubeadm %s", got)
	}
	for path, text := range whole {
		if n.read(path) != text {
			t.Errorf("%s was changed", path)
		}
	}
	if got := n.read("systemctl"); got != "stop kubelet.service\n" {
		t.Errorf("systemctl %s", got)
	}
	for path := range torn {
		if _, err := os.Stat(filepath.Join(n.root, path)); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
}

// TestTornCertificatesAloneAreRemoved: the power went in kubeadm's first phase,
// of which nothing but certificates is left. kubeadm would refuse them for ever.
func TestTornCertificatesAloneAreRemoved(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.program("kubeadm", `test ! -e "$ROOT/etc/kubernetes/pki/apiserver.crt" -a ! -e "$ROOT/etc/kubernetes/pki/apiserver.key" || exit 1
`+goodKubeadm)
	n.s.order = wire.NodeOrder{Kind: wire.NodeInit}
	n.write(kubernetes+"/pki/apiserver.crt", "")
	n.write(kubernetes+"/pki/apiserver.key", "")
	n.boot()
	n.untilEvents(wire.NodeBooted, wire.NodeJoining, wire.NodeJoined)
	if got := n.read("arguments"); !strings.Contains(got, "--skip-phases show-join-command") {
		t.Errorf("kubeadm %s", got)
	}
}

// TestDoneMarkComesAfterTheFiles: with the mark kubeadm never runs again, so
// that what it wrote must be on the disk before.
func TestDoneMarkComesAfterTheFiles(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.program("kubeadm", goodKubeadm)
	a, err := newAgent(n.root, quiet())
	if err != nil {
		t.Fatal(err)
	}
	a.commands.path = filepath.Join(n.root, "bin") + ":/usr/bin:/bin"
	a.commands.env = []string{"ROOT=" + n.root}
	n.s.order = wire.NodeOrder{Kind: wire.NodeInit}
	ctx, cancel := context.WithCancel(t.Context())
	synced := false
	a.sync = func() error {
		if n.read("arguments") == "" || a.host.exists(doneFile) {
			t.Error("the disk was written before kubeadm ended or after the mark")
		}
		synced = true
		cancel() // nobody sends the reports here
		return a.host.syncAll()
	}
	if err := a.join(ctx); err != nil {
		t.Error(err)
	}
	if !synced || !a.host.exists(doneFile) {
		t.Errorf("synced %v, marked %v", synced, a.host.exists(doneFile))
	}
}

func TestWaitsWithAReason(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	stop, _, _ := n.boot()
	n.s.until("the reason", func() bool {
		return slices.Equal(n.s.lines["node-boot-1"], []string{"rackseed: waiting: nothing to do"})
	})
	n.s.until("a second question", func() bool { return n.s.ordered > 1 })
	stop()
	n.untilEvents(wire.NodeBooted)
}

func TestNewAgentRefuses(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.write(wire.PathNodeConfig, "{}")
	if _, err := newAgent(n.root, quiet()); err == nil || !strings.Contains(err.Error(), "reinstall") {
		t.Errorf("an empty configuration: %v", err)
	}
	if _, err := newAgent(t.TempDir(), quiet()); err == nil || !strings.Contains(err.Error(), "not installed by Rackseed") {
		t.Errorf("another system: %v", err)
	}
	n = newNode(t)
	n.write(doneFile, "{")
	if _, err := (host{n.root}).facts(); err == nil || !strings.Contains(err.Error(), doneFile) {
		t.Errorf("a torn done-mark: %v", err)
	}
}
