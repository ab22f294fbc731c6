//go:build vm

// Package scenario proves the whole in virtual machines: real firmware, real
// kernels, a real Kubernetes, on a network with no way out.
package scenario

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/vm-test/qemu"
	"github.com/rackseed/rackseed/vm-test/rack"
	"golang.org/x/crypto/ssh"
)

// storyProfiles label both nodes, the worker also as only an administrator may,
// and keep what does not ask for it off the worker.
const storyProfiles = `profiles:
  - name: control-plane
    role: control-plane
    labels: {rack.example/row: "1"}
  - name: worker
    role: worker
    labels: {disk: nvme, node-role.kubernetes.io/worker: ""}
    taints: ["dedicated=story:NoSchedule"]
`

// answering is a name server on the worker that answers only by what the
// cluster's own answers, which runs on the control plane. It asks that once,
// when it starts (the loop plugin asks for a name that nobody has), and is ready
// once it reached the API server by its Service. The images that are there
// without the internet hold no other program that asks and can be asked.
const answering = `
apiVersion: v1
kind: ConfigMap
metadata: {name: answering, namespace: kube-system}
data:
  Corefile: |
    cluster.local:53 {
        prometheus :9153
        loop
        forward . 10.96.0.10
    }
    .:53 {
        health
        ready
        kubernetes example.test
    }
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: answering, namespace: kube-system}
spec:
  replicas: 1
  selector: {matchLabels: {app: answering}}
  template:
    metadata: {labels: {app: answering}}
    spec:
      serviceAccountName: coredns
      dnsPolicy: Default
      nodeSelector: {disk: nvme}
      tolerations: [{key: dedicated, value: story, effect: NoSchedule}]
      containers:
        - name: coredns
          image: rackseed.local/coredns:v1.14.6
          imagePullPolicy: Never
          args: [-conf, /etc/coredns/Corefile]
          readinessProbe: {httpGet: {path: /ready, port: 8181}, timeoutSeconds: 10, failureThreshold: 10}
          volumeMounts: [{name: config, mountPath: /etc/coredns}]
      volumes: [{name: config, configMap: {name: answering}}]
`

// The ISO as a USB stick under UEFI and an empty machine that becomes a Ready node;
// the boot service moves there, and the stick is pulled; a second machine netboots
// from the cluster, joins it, and pods talk between them; then all power is cut,
// and everything comes back without the stick.
func TestStory(t *testing.T) {
	withTPM := func(i int, m *qemu.Machine) { m.TPM = i == 1 }
	r, p := room(t, rack.Config{Machines: 2, Approve: true, Site: storyProfiles, Setup: withTPM})
	var sentry rack.Sentry
	if err := r.Switch.Record(&sentry); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	console := open(t, r)
	powerOn(t, r, 1)
	follow(t, r, console, 1)
	t.Logf("Ready %.0f s after the appliance's power-on", time.Since(start).Seconds())

	k := administrator(t, r, p, console)
	moveIn(t, r, console, k, 1)
	protected(t, console)
	keyAddedLater(t, r, console)

	powerOn(t, r, 2)
	follow(t, r, console, 2)
	events := serviceEvents(t, console)
	installed := []string{"leased", "Installer session 1", "Approved", "Permitted to write", "written and verified", "Ignition fetched", "it reboots", "Boots its own disk"}
	checkStory(t, events, machineOf(t, console, 1).ID, append(slices.Clone(installed), "kubeadm init is permitted", "init begins the cluster", "The cluster is started", "The node is Ready"))
	checkStory(t, events, machineOf(t, console, 2).ID, append(installed, "Joins the cluster", "A token was made by which node-2 joins", "joins, attempt", "kubeadm ended well", "The node is Ready"))
	if seen, looked := sentry.Seen(); len(seen) > 0 || looked < 100<<20 {
		t.Errorf("in %d MiB on the wire were secrets in the clear: %q", looked>>20, seen)
	}
	checkCluster(t, k)
	powerCut(t, r, console, 1, 2)
	protected(t, console)
}

// keyAddedLater adds an SSH key to the site once the boot service runs on node-1, which
// was installed without one, and logs in there.
func keyAddedLater(t *testing.T, r *rack.Rack, console rack.Console) {
	t.Run("a key that is added later lets in", func(t *testing.T) {
		l := newLaptop(t, r, netip.MustParsePrefix("10.77.0.250/24"))
		signer, at := newKey(t), machineOf(t, console, 1).Address.String()
		logIn := func() (*ssh.Client, error) {
			return l.logIn(at, signer, ssh.InsecureIgnoreHostKey()) // the room's own network; the key is what is tried
		}
		if _, err := logIn(); err == nil || !strings.Contains(err.Error(), "unable to authenticate") {
			t.Fatalf("before it was added: %v", err)
		}
		site := fmt.Sprintf("%s\nsshKeys:\n  - %s", r.SiteFile(), ssh.MarshalAuthorizedKey(signer.PublicKey()))
		var check api.SiteCheck
		if err := console.Call(t.Context(), http.MethodPost, "/api/site/apply", nil, api.SiteText{Text: site}, &check); err != nil || !check.Valid {
			t.Fatalf("%+v, %v", check, err)
		}
		var client *ssh.Client
		eventually(t, 3*time.Minute, "node-1 lets it in", func() (err error) {
			client, err = logIn()
			return err
		})
		session, err := client.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if out, err := session.CombinedOutput("id -u; hostname"); string(out) != "0\nnode-1\n" {
			t.Errorf("%q, %v", out, err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
}

// protected waits until the boot service's secrets are sealed to the machine's TPM, which
// its pod has from the node's agent, and until they can be opened.
func protected(t *testing.T, console rack.Console) {
	t.Helper()
	eventually(t, 5*time.Minute, "the secrets are sealed to the node's TPM", func() error {
		var s api.Status
		err := console.Call(t.Context(), http.MethodGet, "/api/status", nil, nil, &s)
		if err == nil && !slices.ContainsFunc(s.Health, func(h api.Health) bool {
			return h.Name == "secrets" && h.OK && strings.Contains(h.Text, "protected by "+keyring.NameTPM)
		}) {
			err = fmt.Errorf("%+v", s.Health)
		}
		return err
	})
}

// checkStory holds what a machine's timeline must tell, in order.
func checkStory(t *testing.T, events []machine.Event, of machine.ID, parts []string) {
	t.Helper()
	told := texts(slices.DeleteFunc(slices.Clone(events), func(e machine.Event) bool { return e.Machine != of }))
	at := 0
	for _, want := range parts {
		i := strings.Index(told[at:], want)
		if i < 0 {
			t.Fatalf("the timeline of %s does not tell %q after what came before it:\n%s", of, want, told)
		}
		at += i
	}
}

// checkCluster looks at the nodes as their profiles have them, at the system's
// pods, and at what goes between the nodes.
func checkCluster(t *testing.T, k kubectl) {
	t.Helper()
	has := func(parts ...string) func(string) bool {
		return func(out string) bool {
			return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(out, p) })
		}
	}
	for node, labels := range map[string]map[string]string{
		"node-1": {"rack.example/row": "1", "node-role.kubernetes.io/control-plane": ""},
		"node-2": {"disk": "nvme", "node-role.kubernetes.io/worker": ""},
	} {
		// Those that a node may not give itself come a moment later.
		var parts []string
		for key, value := range maps.All(labels) {
			parts = append(parts, fmt.Sprintf("%q:%q", key, value))
		}
		k.until(2*time.Minute, "the labels of "+node, has(parts...), "get", "node", node, "-o", "jsonpath={.metadata.labels}")
	}
	for node, want := range map[string]string{"node-1": "", "node-2": "dedicated=story:NoSchedule"} {
		k.until(time.Minute, "the taints of "+node, func(out string) bool { return out == want },
			"get", "node", node, "-o", `jsonpath={range .spec.taints[*]}{.key}={.value}:{.effect}{end}`)
	}
	k.until(10*time.Minute, "the system's pods run",
		has("pod/coredns", "pod/etcd", "pod/kube-apiserver", "pod/kube-controller-manager", "pod/kube-proxy", "pod/kube-scheduler"),
		"-n", "kube-system", "wait", "--for=condition=Ready", "--timeout=30s", "pod", "--all")
	k.until(2*time.Minute, "no token is left", func(out string) bool { return out == "" },
		"-n", "kube-system", "get", "secret", "-l", "rackseed.local/machine", "-o", "name")

	if _, err := k.with(answering, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	k.until(5*time.Minute, "a Deployment runs on the worker", has("successfully rolled out"),
		"-n", "kube-system", "rollout", "status", "deployment/answering", "--timeout=30s")
	pod := k.until(time.Minute, "its pod", has("node-2 10.244."),
		"-n", "kube-system", "get", "pod", "-l", "app=answering", "-o", "jsonpath={range .items[*]}{.spec.nodeName} {.status.podIP} {.metadata.name}{end}")
	name := pod[strings.LastIndex(pod, " ")+1:]
	// From the API server on the control plane to the pod on the worker, which
	// got its answer from the pod of the cluster's name server on the control
	// plane, by its Service.
	k.until(2*time.Minute, "the worker's pod was answered by the control plane's", func(out string) bool {
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "coredns_proxy_request_duration_seconds_count{") && strings.Contains(line, `to="10.96.0.10:53"`) {
				return true
			}
		}
		return false
	}, "get", "--raw", "/api/v1/namespaces/kube-system/pods/"+name+":9153/proxy/metrics")
}
