package ignition

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	config "github.com/coreos/ignition/v2/config/v3_6"
	"github.com/vincent-petithory/dataurl"

	"github.com/rackseed/rackseed/services/machine"
)

var update = flag.Bool("update", false, "write the golden files anew")

// input is a control plane on a link with DHCP, a router and a name server.
func input() Input {
	seed := bytes.Repeat([]byte{7}, 32)
	return Input{
		Site: machine.Site{
			Name:           "lab",
			ServiceAddress: netip.MustParseAddr("10.77.0.1"),
			Links: []machine.SiteLink{
				{Interface: "eth1", Address: netip.MustParsePrefix("192.168.4.2/24"), Gateway: netip.MustParseAddr("192.168.4.1")},
				{Interface: "eth0", Address: netip.MustParsePrefix("10.77.0.2/16"), DHCP: &machine.SiteDHCP{
					Router: netip.MustParseAddr("10.77.0.254"),
					DNS:    []netip.Addr{netip.MustParseAddr("10.77.0.53"), netip.MustParseAddr("10.77.0.54")},
				}},
			},
			SSHKeys: []string{"ssh-ed25519 AAAAC3Nz ann", "ssh-ed25519 AAAAC3Nz bob", "ssh-ed25519 AAAAC3Nz ann"},
			Cluster: machine.SiteCluster{
				PodSubnet: netip.MustParsePrefix("10.244.0.0/16"), ServiceSubnet: netip.MustParsePrefix("10.96.0.0/16"),
			},
		},
		Machine: machine.Machine{
			ID: "m-0000002a", Name: "node-1", Address: netip.MustParseAddr("10.77.0.11"),
			MACs:      []machine.MAC{"52:54:00:00:00:01", "52:54:00:00:00:02"},
			Inventory: &machine.Inventory{BootMAC: "52:54:00:00:00:02"},
		},
		Profile:    machine.Profile{Name: "control-plane", Role: machine.RoleControlPlane},
		NodeSeed:   seed,
		ServiceURL: "http://10.77.0.1",
		Secrets:    func(name string) ([]byte, bool) { return []byte("secret " + name), true },
	}
}

// contributed is a Contributor with fixed files.
type contributed []File

func (c contributed) Contribute(Input) ([]File, error) { return c, nil }

// failing is a Contributor that cannot.
type failing struct{}

func (failing) Contribute(Input) ([]File, error) { return nil, errors.New("no CA") }

// fromSecret contributes a secret of the cluster.
type fromSecret string

func (s fromSecret) Contribute(in Input) ([]File, error) {
	b, ok := in.Secrets(string(s))
	if !ok {
		return nil, fmt.Errorf("secret %s is missing", s)
	}
	return []File{{"/etc/kubernetes/" + string(s), 0o600, b}}, nil
}

// readable renders an Ignition for review: its files' contents in the clear.
func readable(t *testing.T, b []byte) []byte {
	t.Helper()
	c, _, err := config.Parse(b)
	if err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "spec %s\n", c.Ignition.Version)
	for _, u := range c.Passwd.Users {
		fmt.Fprintf(&out, "user %s %q\n", u.Name, u.SSHAuthorizedKeys)
	}
	for _, u := range c.Systemd.Units {
		fmt.Fprintf(&out, "unit %s enabled=%v\n", u.Name, u.Enabled != nil && *u.Enabled)
	}
	for _, f := range c.Storage.Files {
		u, err := dataurl.DecodeString(*f.Contents.Source)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "--- %s %04o overwrite=%v\n%s", f.Path, *f.Mode, *f.Overwrite, u.Data)
	}
	return out.Bytes()
}

func TestAssembleGolden(t *testing.T) {
	plain := input()
	plain.Site.Links[1].DHCP.Router, plain.Site.Links[1].DHCP.DNS = netip.Addr{}, nil
	plain.Site.SSHKeys = nil
	plain.Site.Emulated = true
	plain.Machine.Inventory = nil
	plain.Profile = machine.Profile{Name: "worker", Role: machine.RoleWorker}
	merged := input()
	merged.Profile.Ignition = `{"ignition": {"version": "3.3.0"},
		"passwd": {"users": [{"name": "root", "sshAuthorizedKeys": ["ssh-ed25519 AAAAC3Nz eve"]}]},
		"storage": {"files": [{"path": "/etc/hosts", "mode": 420, "overwrite": true, "contents": {"source": "data:,127.0.0.1%20localhost%0A"}},
		                      {"path": "/etc/motd", "mode": 420, "overwrite": true, "contents": {"source": "data:,hello%0A"}}]},
		"systemd": {"units": [{"name": "audit.service", "enabled": true, "contents": "[Service]\nExecStart=/bin/true\n"}]}}`
	for name, c := range map[string]struct {
		in           Input
		contributors []Contributor
	}{
		"control-plane": {input(), []Contributor{contributed{{"/etc/rackseed/kubeadm.yaml", 0o600, []byte("kind: x\n")}}, fromSecret("pki/ca.crt")}},
		"plain":         {plain, nil},
		"merged":        {merged, nil},
	} {
		t.Run(name, func(t *testing.T) {
			first, err := Assemble(c.in, c.contributors...)
			if err != nil {
				t.Fatal(err)
			}
			for range 20 {
				again, err := Assemble(c.in, c.contributors...)
				if err != nil || !bytes.Equal(first, again) {
					t.Fatalf("not the same bytes again: %v\n%s\n%s", err, first, again)
				}
			}
			got := readable(t, first)
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("differs from %s (-update writes it anew):\n%s", golden, got)
			}
		})
	}
}

func TestAssembleRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change      func(*Input)
		contributor Contributor
		want        string
	}{
		"no name":        {func(in *Input) { in.Machine.Name = "" }, nil, "no name"},
		"no address":     {func(in *Input) { in.Machine.Address = netip.Addr{} }, nil, "no address"},
		"foreign":        {func(in *Input) { in.Machine.Address = netip.MustParseAddr("172.16.0.1") }, nil, "172.16.0.1 is in no network"},
		"no MAC":         {func(in *Input) { in.Machine.MACs, in.Machine.Inventory = nil, nil }, nil, "no hardware address"},
		"short seed":     {func(in *Input) { in.NodeSeed = in.NodeSeed[:31] }, nil, "31 bytes"},
		"contributor":    {func(*Input) {}, failing{}, "no CA"},
		"relative":       {func(*Input) {}, contributed{{"etc/x", 0o644, nil}}, "absolute, clean path"},
		"unclean":        {func(*Input) {}, contributed{{"/etc/../x", 0o644, nil}}, "absolute, clean path"},
		"twice":          {func(*Input) {}, contributed{{"/etc/hostname", 0o644, nil}}, "contributed twice"},
		"folder mode":    {func(*Input) {}, contributed{{"/etc/x", os.ModeDir | 0o755, nil}}, "permission bits"},
		"broken profile": {func(in *Input) { in.Profile.Ignition = "{" }, nil, `profile "control-plane": ignition`},
		"in the way": {func(in *Input) {
			in.Profile.Ignition = `{"ignition":{"version":"3.6.0"},"storage":{"links":[{"path":"/etc/default","target":"/var/x"}]}}`
		}, contributed{{"/etc/default/kubelet", 0o644, nil}}, "merged into the machine's own"},
	} {
		t.Run(name, func(t *testing.T) {
			in := input()
			c.change(&in)
			var contributors []Contributor
			if c.contributor != nil {
				contributors = append(contributors, c.contributor)
			}
			_, err := Assemble(in, contributors...)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "machine m-0000002a") {
				t.Errorf("got %v, want it to name the machine and say %q", err, c.want)
			}
		})
	}
}

// view is a View over maps.
type view struct {
	site     *machine.Site
	profiles map[machine.ID]machine.Profile
	secrets  map[string][]byte
}

func (v view) Site() (machine.Site, bool) {
	if v.site == nil {
		return machine.Site{}, false
	}
	return *v.site, true
}
func (v view) Profile(id machine.ID) (machine.Profile, bool) { p, ok := v.profiles[id]; return p, ok }
func (v view) Secret(name string) ([]byte, bool)             { b, ok := v.secrets[name]; return b, ok }

func TestFromView(t *testing.T) {
	want := input()
	full := view{
		&want.Site, map[machine.ID]machine.Profile{want.Machine.ID: want.Profile},
		map[string][]byte{"node/m-0000002a": want.NodeSeed, "node/m-0000002b": {1}, "pki/ca.crt": []byte("ca")},
	}
	in, err := FromView(full, want.Machine, "")
	if err != nil || in.ServiceURL != "http://10.77.0.1" || !bytes.Equal(in.NodeSeed, want.NodeSeed) || in.Profile.Name != "control-plane" {
		t.Errorf("%+v, %v", in, err)
	}
	if b, ok := in.Secrets("pki/ca.crt"); !ok || string(b) != "ca" {
		t.Errorf("a secret of the cluster: %q, %v", b, ok)
	}
	for _, name := range []string{"node/m-0000002a", "node/m-0000002b"} {
		if _, ok := in.Secrets(name); ok {
			t.Errorf("a contributor got %s", name)
		}
	}
	for name, v := range map[string]view{
		"no site file":   {nil, full.profiles, full.secrets},
		"never approved": {full.site, nil, full.secrets},
		"node key":       {full.site, full.profiles, nil},
	} {
		if _, err := FromView(v, want.Machine, ""); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
