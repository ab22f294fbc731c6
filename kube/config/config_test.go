package config

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/kube/pki"
	"github.com/rackseed/rackseed/services/ignition"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

var update = flag.Bool("update", false, "write the golden files")

func input(emulated bool) ignition.Input {
	return ignition.Input{
		Site: machine.Site{
			Name: "lab", ServiceAddress: netip.MustParseAddr("10.77.0.1"), Emulated: emulated,
			Cluster: machine.SiteCluster{ExtraSANs: []string{"k8s.lab.example"}},
		},
		Machine: machine.Machine{ID: "m-1", Name: "node-1", Address: netip.MustParseAddr("10.77.0.11")},
		Profile: machine.Profile{
			Name: "control-plane", Role: machine.RoleControlPlane,
			Labels: map[string]string{"rack.example/row": "3", "disk": "nvme"},
		},
		Secrets: func(name string) ([]byte, bool) { return []byte("secret " + name + "\n"), true },
	}
}

// TestGolden holds every byte that a node gets: what changes here changes
// clusters, and is to be read before it is accepted with -update.
func TestGolden(t *testing.T) {
	tainted := input(false)
	tainted.Profile.Taints = []string{"node-role.kubernetes.io/control-plane:NoSchedule", "a=b:NoExecute"}
	worker, plain := input(true), input(false)
	worker.Profile.Role, plain.Profile.Role = machine.RoleWorker, machine.RoleWorker
	plain.Profile.Taints = tainted.Profile.Taints
	plain.Profile.Labels = map[string]string{"node-role.kubernetes.io/worker": "", "disk": "nvme"}
	for name, in := range map[string]ignition.Input{
		"normal": input(false), "emulated": input(true), "tainted": tainted, "worker": plain, "emulated-worker": worker,
	} {
		files, err := Contributor{}.Contribute(in)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got bytes.Buffer
		for _, f := range files {
			fmt.Fprintf(&got, "== %s %04o\n%s", f.Path, f.Mode, f.Contents)
		}
		golden := filepath.Join("testdata", name+".golden")
		if *update {
			if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s differs from %s:\n%s", name, golden, got.Bytes())
		}
	}
}

func TestWorkerGetsNoSecret(t *testing.T) {
	in := input(false)
	in.Profile.Role = machine.RoleWorker
	in.Secrets = func(name string) ([]byte, bool) { t.Errorf("%s was asked for", name); return nil, false }
	files, err := Contributor{}.Contribute(in)
	if err != nil || len(files) != 1 || files[0].Path != JoinPath {
		t.Errorf("a real worker got %v, error %v", files, err)
	}
}

func TestJoin(t *testing.T) {
	template, err := JoinTemplate(controlPlane(input(false)).Node, false)
	if err != nil {
		t.Fatal(err)
	}
	good := wire.JoinSecret{Token: "abcdef.0123456789abcdef", Endpoint: "10.77.0.1:6443", CACertHashes: []string{"sha256:ab"}}
	b, err := Join(template, good)
	if err != nil {
		t.Fatal(err)
	}
	const want = "discovery:\n  bootstrapToken:\n    apiServerEndpoint: 10.77.0.1:6443\n    caCertHashes:\n    - sha256:ab\n    token: abcdef.0123456789abcdef\n"
	if got := strings.Replace(string(b), want, "", 1); got != string(template) {
		t.Errorf("%s\nis not\n%s\nwith\n%s", b, template, want)
	}
	// Without the authority's hash kubeadm would trust whoever answers.
	for name, lacks := range map[string]func(*wire.JoinSecret){
		"token": func(s *wire.JoinSecret) { s.Token = "" }, "endpoint": func(s *wire.JoinSecret) { s.Endpoint = "" }, "authority": func(s *wire.JoinSecret) { s.CACertHashes = nil },
	} {
		bad := good
		lacks(&bad)
		if _, err := Join(template, bad); err == nil {
			t.Errorf("joined without the %s", name)
		}
	}
	if _, err := Join([]byte("kind: JoinConfiguration\nsurprise: 1\n"), good); err == nil || !strings.Contains(err.Error(), JoinPath) {
		t.Errorf("a template of another version: %v", err)
	}
}

func TestKeysAreRootsAlone(t *testing.T) {
	files, err := Contributor{}.Contribute(input(false))
	if err != nil {
		t.Fatal(err)
	}
	keys := 0
	for _, f := range files {
		if strings.HasSuffix(f.Path, ".key") {
			keys++
			if f.Mode != 0o600 {
				t.Errorf("%s has mode %04o", f.Path, f.Mode)
			}
		}
	}
	if keys != 4 {
		t.Errorf("%d keys, wanted those of three authorities and of service accounts", keys)
	}
}

func TestRefused(t *testing.T) {
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	for name, test := range map[string]struct {
		change func(*ignition.Input)
		want   string
	}{
		"no address":         {func(in *ignition.Input) { in.Machine.Address = netip.Addr{} }, "no static address"},
		"no service address": {func(in *ignition.Input) { in.Site.ServiceAddress = netip.Addr{} }, "no service address"},
		"no name":            {func(in *ignition.Input) { in.Machine.Name = "" }, "without a name"},
		"pods too few":       {func(in *ignition.Input) { in.Site.Cluster.PodSubnet = prefix("10.1.0.0/25") }, "/8 to /24"},
		"services too many":  {func(in *ignition.Input) { in.Site.Cluster.ServiceSubnet = prefix("10.0.0.0/8") }, "/12 to /24"},
		"overlap":            {func(in *ignition.Input) { in.Site.Cluster.PodSubnet = prefix("10.96.0.0/20") }, "overlap"},
		"node among pods":    {func(in *ignition.Input) { in.Machine.Address = addr("10.244.3.1") }, "inside"},
		"taint":              {func(in *ignition.Input) { in.Profile.Taints = []string{"a=b:Never"} }, `taint "a=b:Never"`},
		"taint without key":  {func(in *ignition.Input) { in.Profile.Taints = []string{"=b:NoExecute"} }, "taint"},
		"label of the kubelet": {func(in *ignition.Input) {
			in.Profile.Labels = map[string]string{"kubernetes.io/hostname": "x"}
		}, "the kubelet sets it"},
		"label that is none":       {func(in *ignition.Input) { in.Profile.Labels = map[string]string{"a b": ""} }, "name part"},
		"value of a label that is": {func(in *ignition.Input) { in.Profile.Labels = map[string]string{"a": "b,c=d"} }, "a valid label"},
		"a secret is missing": {func(in *ignition.Input) {
			in.Secrets = func(name string) ([]byte, bool) { return nil, name != "pki/sa.key" }
		}, "pki/sa.key"},
	} {
		in := input(false)
		test.change(&in)
		if _, err := (Contributor{}).Contribute(in); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, wanted one with %q", name, err, test.want)
		}
	}
}

func TestLabelsThatNodesMayHave(t *testing.T) {
	for key, want := range map[string]bool{
		"disk": true, "rack.example/row": true, "topology.kubernetes.io/zone": true, "node.kubernetes.io/pool": true,
		"a.kubelet.kubernetes.io/x": true, "notkubernetes.io/x": true,
		"kubernetes.io/x": false, "node-role.kubernetes.io/x": false, "x.k8s.io/y": false,
	} {
		own, restricted, err := splitLabels(map[string]string{key: "v"})
		if err != nil || (len(own) == 1) != want || (len(restricted) == 0) != want {
			t.Errorf("%s: of itself %v, by others %v, error %v", key, own, restricted, err)
		}
		if got := RestrictedLabels(map[string]string{key: "v"}); !maps.Equal(got, restricted) {
			t.Errorf("%s: restricted %v", key, got)
		}
	}
}

func TestCheckProfile(t *testing.T) {
	for name, test := range map[string]struct {
		profile machine.Profile
		want    string // "": valid
	}{
		"empty": {machine.Profile{}, ""},
		"good":  {machine.Profile{Labels: map[string]string{"node-role.kubernetes.io/gpu": "", "a": "b"}, Taints: []string{"a:NoSchedule"}}, ""},
		"label": {machine.Profile{Labels: map[string]string{"/": ""}}, "label"},
		"taint": {machine.Profile{Taints: []string{"a"}}, "taint"},
	} {
		if err := CheckProfile(test.profile); (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSecretsOfPKIAreAllUsed(t *testing.T) {
	asked := map[string]bool{}
	in := input(false)
	in.Secrets = func(name string) ([]byte, bool) { asked[name] = true; return []byte("x"), true }
	if _, err := (Contributor{}).Contribute(in); err != nil {
		t.Fatal(err)
	}
	for _, name := range pki.Names() {
		if !asked[name] {
			t.Errorf("%s is not on a control plane", name)
		}
	}
}
