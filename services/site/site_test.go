package site

import (
	"bytes"
	"errors"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

var update = flag.Bool("update", false, "write docs/site.schema.json")

func TestExample(t *testing.T) {
	src, err := os.ReadFile("../../docs/site.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse("site.example.yaml", src)
	if err != nil {
		t.Fatal(err)
	}
	if s.Links[0].MAC != "52:54:00:aa:00:01" || s.Links[0].DHCP.To != netip.MustParseAddr("10.77.0.199") {
		t.Errorf("links: %+v", s.Links)
	}
	if len(s.SSHKeys) != 1 || len(s.Operators) != 1 || len(s.Machines) != 2 || !s.Machines[0].Approve {
		t.Errorf("people and machines: %+v", s)
	}
	if s.Profiles[1].Labels["example.org/rack"] != "1" {
		t.Errorf("labels: %v", s.Profiles[1].Labels)
	}
}

const small = `version: 1
name: r
serviceAddress: 10.77.0.3
links:
  - interface: eth0
    address: 10.77.0.2/24
    dhcp:
      from: 10.77.0.100
      to: 10.77.0.199
`

func TestDefaults(t *testing.T) {
	s, err := Parse("site.yaml", []byte(small))
	if err != nil {
		t.Fatal(err)
	}
	if got := time.Duration(s.Links[0].DHCP.LeaseTime); got != time.Hour {
		t.Errorf("lease time %v, want 1h", got)
	}
	if len(s.Profiles) != 2 || s.Profiles[0].Role != machine.RoleControlPlane || s.Profiles[1].Role != machine.RoleWorker {
		t.Errorf("profiles: %+v", s.Profiles)
	}
	if s.Cluster.Name != "r" || s.Cluster.PodSubnet.String() != "10.244.0.0/16" || s.Cluster.ServiceSubnet.String() != "10.96.0.0/16" {
		t.Errorf("cluster: %+v", s.Cluster)
	}
}

func TestProblems(t *testing.T) {
	change := func(old, new string) string {
		if !strings.Contains(small, old) {
			t.Fatalf("the small site has no %q", old)
		}
		return strings.Replace(small, old, new, 1)
	}
	const dhcp = "      to: 10.77.0.199\n"
	tests := []struct {
		name, src string
		want      []string // all lines of the error
	}{
		{"address out of range", change("from: 10.77.0.100", "from: 10.77.0.300"),
			[]string{`s.yaml:8:13: links[0].dhcp.from: "10.77.0.300": expected an IPv4 address, as 10.77.0.100`}},
		{"IPv6", change("10.77.0.3\n", "fd00::1\n"),
			[]string{`s.yaml:3:17: serviceAddress: "fd00::1": expected an IPv4 address, as 10.77.0.100`}},
		{"unknown key, near one", change("serviceAddress", "serviceAdress"), []string{
			`s.yaml:1:1: serviceAddress: missing: expected an IPv4 address, as 10.77.0.100`,
			`s.yaml:3:1: serviceAdress: unknown key: expected "serviceAddress"?`}},
		{"unknown key, near none", change("    dhcp", "    zzzzzzzzzz: 1\n    dhcp"),
			[]string{`s.yaml:7:5: links[0].zzzzzzzzzz: unknown key: expected one of mac, interface, vlan, address, gateway, dhcp`}},
		{"several at once", change("version: 1", "version: x") + "emulated: 7\n", []string{
			`s.yaml:1:10: version: "x": expected a whole number`,
			`s.yaml:10:11: emulated: "7": expected true or false`}},
		{"missing in a nested mapping", change("      to: 10.77.0.199\n", ""),
			[]string{`s.yaml:8:7: links[0].dhcp.to: missing: expected an IPv4 address, as 10.77.0.100`}},
		{"syntax", "version: [1\n", []string{`s.yaml:1:10: not YAML: sequence end token ']' not found`}},
		{"empty", "# nothing\n", []string{`s.yaml:1:1: the file is empty: expected a site; see docs/site.example.yaml`}},
		{"not a mapping", "- 1\n", []string{`s.yaml:1:1: a list: expected a mapping (key: value)`}},
		{"two documents", small + "---\n" + small, []string{`s.yaml:11:8: a second document: expected one document`}},
		{"alias", change("name: r", "name: &a r"),
			[]string{`s.yaml:2:7: name: anchors, aliases, merge keys and tags are not understood in a site file: expected the value itself`}},
		{"duplicate key", small + "name: b\n", []string{`s.yaml:10:1: not YAML: mapping key "name" already defined at [2:1]`}},
		{"version", change("version: 1", "version: 2"), []string{`s.yaml:1:10: version: 2: expected 1`}},
		{"no links", "version: 1\nname: r\nserviceAddress: 10.77.0.3\nlinks:\n", []string{`s.yaml:4:8: links: no link: expected at least one`}},
		{"no choice of link", change("interface: eth0\n    address", "address"),
			[]string{`s.yaml:5:5: links[0]: neither mac nor interface: expected one of them, to choose the link`}},
		{"both choices of link", change("interface: eth0", "interface: eth0\n    mac: 52:54:00:00:00:01"),
			[]string{`s.yaml:5:5: links[0]: both mac and interface: expected one of them`}},
		{"VLAN IDs", change("interface: eth0", "interface: eth0\n    vlan: 4095") + "  - {interface: eth0, vlan: -1, address: 10.78.0.2/24}\n", []string{
			`s.yaml:6:11: links[0].vlan: 4095: expected a VLAN ID of 1 to 4094, or 0 for the untagged network`,
			`s.yaml:11:29: links[1].vlan: -1: expected a VLAN ID of 1 to 4094, or 0 for the untagged network`}},
		{"the same VLAN of a link twice", small + "  - {interface: eth0, vlan: 5, address: 10.78.0.2/24}\n  - {interface: eth0, vlan: 5, address: 10.79.0.2/24}\n",
			[]string{`s.yaml:11:17: links[2].interface: VLAN 5 of eth0 is already at links[1].interface: expected each link once`}},
		{"network address", change("10.77.0.2/24", "10.77.0.0/24"),
			[]string{`s.yaml:6:14: links[0].address: 10.77.0.0/24: expected a host's address in a network of /8 to /30, as 10.77.0.2/24`}},
		{"service address elsewhere", change("10.77.0.3\n", "10.78.0.3\n"),
			[]string{`s.yaml:3:17: serviceAddress: 10.78.0.3 is in no link's network: expected a free address in the network of one link`}},
		{"service address is the link's", change("10.77.0.3\n", "10.77.0.2\n"),
			[]string{`s.yaml:3:17: serviceAddress: 10.77.0.2 is the own address of links[0]: expected a free address that nothing else uses`}},
		{"service address in the pool", change("10.77.0.3\n", "10.77.0.100\n"),
			[]string{`s.yaml:3:17: serviceAddress: 10.77.0.100 is in the pool of links[0]: expected a free address that nothing else uses`}},
		{"overlapping links", small + "  - interface: eth1\n    address: 10.77.0.200/25\n",
			[]string{`s.yaml:11:14: links[1].address: 10.77.0.128/25 overlaps links[0], 10.77.0.0/24: expected each link in a network of its own`}},
		{"pool turned round", change("from: 10.77.0.100", "from: 10.77.0.200"),
			[]string{`s.yaml:9:11: links[0].dhcp.to: 10.77.0.199: expected an address not before from, 10.77.0.200`}},
		{"pool outside", change("to: 10.77.0.199", "to: 10.77.1.199"),
			[]string{`s.yaml:9:11: links[0].dhcp.to: 10.77.1.199: expected a host's address in 10.77.0.0/24`}},
		{"pool over the link's address", change("from: 10.77.0.100", "from: 10.77.0.1"), []string{
			`s.yaml:3:17: serviceAddress: 10.77.0.3 is in the pool of links[0]: expected a free address that nothing else uses`,
			`s.yaml:8:7: links[0].dhcp: the pool holds the link's own address, 10.77.0.2: expected a pool without it`}},
		{"lease time", small + "      leaseTime: 1s\n", []string{`s.yaml:10:18: links[0].dhcp.leaseTime: 1s: expected 10s to 720h0m0s`}},
		{"lease time without a unit", small + "      leaseTime: 60\n", []string{`s.yaml:10:18: links[0].dhcp.leaseTime: "60": expected a duration, as 90s, 30m or 1h30m`}},
		{"reservation outside, and twice", change(dhcp, dhcp+`      reservations:
      - {mac: "52:54:00:00:00:01", address: 10.78.0.1}
      - {mac: "52-54-00-00-00-01", address: 10.77.0.9}
`), []string{
			`s.yaml:11:45: links[0].dhcp.reservations[0].address: 10.78.0.1: expected a host's address in 10.77.0.0/24`,
			`s.yaml:12:15: links[0].dhcp.reservations[1].mac: 52:54:00:00:00:01 is already at links[0].dhcp.reservations[0].mac: expected each hardware address once`}},
		{"machines", small + `machines:
  - name: a
  - {mac: 52:54:00:00:00:01, name: a, address: 10.77.0.150}
  - {uuid: x, address: 10.99.0.1}
  - {mac: 52:54:00:00:00:01, profile: storage, name: Upper}
`, []string{
			`s.yaml:11:5: machines[0]: neither mac nor uuid: expected one of them, to know the machine by`,
			`s.yaml:12:36: machines[1].name: a is already at machines[0].name: expected each name once`,
			`s.yaml:12:48: machines[1].address: 10.77.0.150 is in the pool of links[0]: expected an address outside it`,
			`s.yaml:13:12: machines[2].uuid: "x": expected a UUID, as 4c4c4544-0042-3510-8052-b4c04f4d3132`,
			`s.yaml:13:24: machines[2].address: 10.99.0.1 is in the network of no link with dhcp: expected an address in one of them, so that the machine finds the boot service`,
			`s.yaml:14:11: machines[3].mac: 52:54:00:00:00:01 is already at machines[1].mac: expected each hardware address once`,
			`s.yaml:14:39: machines[3].profile: no profile "storage": expected one of control-plane, worker`,
			`s.yaml:14:54: machines[3].name: "Upper": expected a host name: lower-case letters, digits and hyphens, at most 63`}},
		{"people", small + "sshKeys: [ssh-rsa nonsense]\noperators:\n  - {name: ann, tokenSHA256: secret}\n", []string{
			`s.yaml:10:11: sshKeys[0]: not a public key: expected one line as in a .pub file, as ssh-ed25519 AAAA… name`,
			`s.yaml:12:30: operators[0].tokenSHA256: not a SHA-256 in hex: expected 64 hex digits, as printf %s TOKEN | sha256sum prints`}},
		{"profiles", small + "profiles:\n  - {name: a, role: boss, taints: [x]}\n", []string{
			`s.yaml:11:21: profiles[0].role: "boss": expected control-plane or worker`,
			`s.yaml:11:36: profiles[0].taints[0]: "x": expected key=value:effect, the effect NoSchedule, PreferNoSchedule or NoExecute`}},
		{"cluster", small + "cluster:\n  podSubnet: 10.77.0.0/16\n  serviceSubnet: 10.96.0.1/16\n", []string{
			`s.yaml:11:14: cluster.podSubnet: 10.77.0.0/16 overlaps links[0], 10.77.0.0/24: expected a network that nothing else uses`,
			`s.yaml:12:18: cluster.serviceSubnet: 10.96.0.1/16: expected the network's own address, 10.96.0.0/16`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse("s.yaml", []byte(test.src))
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("error %v is no *Error", err)
			}
			got, want := e.Error(), strings.Join(test.want, "\n")
			if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestTooLarge(t *testing.T) {
	_, err := Parse("s.yaml", make([]byte, MaxBytes+1))
	if err == nil || err.Error() != "s.yaml: the file has 1048577 bytes: expected at most 1048576" {
		t.Errorf("got %v", err)
	}
}

func TestTooDeep(t *testing.T) {
	for _, unit := range []string{"[", "{a: ", "- ", "? "} {
		_, err := Parse("s.yaml", []byte(strings.Repeat(unit, 100_000)))
		if err == nil || !strings.HasPrefix(err.Error(), "s.yaml: lists and mappings are nested ") {
			t.Errorf("%q: got %.200v", unit, err)
		}
	}
}

// Text is taken as it was written: numbers, literal blocks, a Windows editor's
// byte order mark and line ends.
func TestNotations(t *testing.T) {
	src := "\xef\xbb\xbf" + strings.ReplaceAll(small, "\n", "\r\n") +
		"machines:\r\n  - {mac: 52-54-00-AA-00-01, disk: {serial: 0012}}\r\n"
	s, err := Parse("s.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	if m := s.Machines[0]; m.MAC != "52:54:00:aa:00:01" || m.Disk.Serial != "0012" {
		t.Errorf("machine: %+v", m)
	}
	s, err = Parse("s.yaml", []byte(small+"profiles:\n  - name: a\n    role: worker\n    ignition: |\n      {\"ignition\":\n        {}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Profiles[0].Ignition, "{\"ignition\":\n  {}}\n"; got != want {
		t.Errorf("literal block %q, want %q", got, want)
	}
}

func TestSchema(t *testing.T) {
	got, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	const file = "../../docs/site.schema.json"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/site.schema.json differs from machine.Site: go test ./services/site -run Schema -update")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte("links: [[[[{a: b}]]]]"))
	f.Add([]byte("a: &x [*x]\n<<: *x\n? y\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		s, err := Parse("s.yaml", src)
		var e *Error
		switch {
		case err == nil && s.Version != 1:
			t.Errorf("accepted version %d", s.Version)
		case err != nil && (!errors.As(err, &e) || len(e.Problems) == 0):
			t.Errorf("error without a problem: %v", err)
		}
	})
}
