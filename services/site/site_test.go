package site

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/goccy/go-yaml"

	"github.com/rackseed/rackseed/services/machine"
)

var update = flag.Bool("update", false, "write docs/site.schema.json")

// inForce is the example with all that is commented out in force.
func inForce(example []byte) []byte {
	return regexp.MustCompile(`(?m)^( *)#([^ \n].*|  .*)$`).ReplaceAll(example, []byte("$1$2"))
}

// The example is valid and harmless as it stands: it gives nobody access,
// installs nothing, and has no machine looked at that nobody asked for.
func TestExample(t *testing.T) {
	src, err := os.ReadFile("../../docs/site.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse("site.example.yaml", src)
	if err != nil {
		t.Fatal(err)
	}
	want := machine.Site{
		Version: 1, Name: "rack1", ServiceAddress: netip.MustParseAddr("10.77.0.3"),
		Links: []machine.SiteLink{{
			MAC: "00:00:5e:00:53:01", Address: netip.MustParsePrefix("10.77.0.2/24"),
			DHCP: &machine.SiteDHCP{
				From: netip.MustParseAddr("10.77.0.100"), To: netip.MustParseAddr("10.77.0.199"), Router: netip.MustParseAddr("10.77.0.1"),
				DNS: []netip.Addr{netip.MustParseAddr("10.77.0.1")}, LeaseTime: DefaultLeaseTime,
			},
		}},
	}
	complete(&want)
	if !reflect.DeepEqual(s, want) {
		t.Errorf("as it stands it says\n%+v, want\n%+v", s, want)
	}

	// What is commented out is valid too, and shows every key.
	whole := inForce(src)
	if s, err = Parse("site.example.yaml", whole); err != nil {
		t.Fatalf("with all of it in force: %v\n%s", err, whole)
	}
	if !s.Machines[0].Approve || s.Profiles[1].Selector.MinMemory != 256<<30 || s.Profiles[1].Labels["example.org/accelerator"] != "a100" {
		t.Errorf("with all of it in force it says\n%+v", s)
	}
	for name := range places {
		if name != "interface" && !regexp.MustCompile(`(?m)^[ -]*`+name+`:|[{,] *`+name+`:`).Match(whole) {
			t.Errorf("it does not show %s", name)
		}
	}
}

// Editors check by the schema: it must take what Parse takes.
func TestSchemaTakesTheExample(t *testing.T) {
	src, err := os.ReadFile("../../docs/site.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	registry := huma.NewMapRegistry("#/$defs/", huma.DefaultSchemaNamer)
	schema := registry.Schema(reflect.TypeFor[machine.Site](), true, "Site")
	for name, text := range map[string][]byte{"as it stands": src, "all of it": inForce(src)} {
		var value any
		if err := yaml.Unmarshal(text, &value); err != nil {
			t.Fatal(err)
		}
		var found huma.ValidateResult
		huma.Validate(registry, schema, huma.NewPathBuffer(nil, 0), huma.ModeWriteToServer, value, &found)
		for _, err := range found.Errors {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSummary(t *testing.T) {
	s, err := Parse("site.yaml", []byte(small))
	if err != nil {
		t.Fatal(err)
	}
	quiet := `site "r", service address 10.77.0.3
link eth0 has 10.77.0.2/24 and serves DHCP, 10.77.0.100 to 10.77.0.199, to machines
machines that are listed (0) are looked at, others only while an operator opens the discovery window
nothing is installed without asking
operators: whoever has the setup code on the screen
SSH keys of root on nodes: 0`
	if got := strings.Join(Summary(s), "\n"); got != quiet {
		t.Errorf("got\n%s\nwant\n%s", got, quiet)
	}
	s.Links[0].DHCP.Others = true
	s.Links = append(s.Links, machine.SiteLink{MAC: "52:54:00:00:00:01", VLAN: 7, Address: netip.MustParsePrefix("10.78.0.2/24")})
	s.Discovery.Always, s.Emulated, s.MemoryOnly = true, true, true
	s.Machines = []machine.ListedMachine{{MAC: "52:54:00:00:00:02", Name: "n1", Approve: true}, {MAC: "52:54:00:00:00:03"}}
	for range 9 {
		s.Machines = append(s.Machines, machine.ListedMachine{UUID: "4c4c4544-0042-3510-8052-b4c04f4d3132", Approve: true})
	}
	s.Operators = []machine.SiteOperator{{Name: "ann"}}
	s.SSHKeys = []string{"x"}
	got := strings.Join(Summary(s), "\n")
	for _, want := range []string{
		"10.77.0.199, to machines and to all other clients\n", "link 52:54:00:00:00:01 VLAN 7 has 10.78.0.2/24 and is not served\n",
		"ANY machine that netboots there is looked at", "WITHOUT ASKING, once, onto an empty disk: n1 (52:54:00:00:00:02), 4c4c4544-", " and 2 more\n",
		"the screen, ann by token\n", "nodes: 1\n", "\nEMULATED", "\nMEMORY ONLY",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("it does not say %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "52:54:00:00:00:03") {
		t.Errorf("it names a machine that is not installed unasked:\n%s", got)
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
		{"unknown key, near one", change("serviceAddress", "serviceAdress"), []string{`s.yaml:3:1: serviceAdress: unknown key: expected "serviceAddress"?`}},
		{"unknown key, near one of another place", change("    dhcp", "    machines: []\n    dhcp"),
			[]string{`s.yaml:7:5: links[0].machines: unknown key here: expected it at the top, not indented`}},
		{"unknown key, at home in two places", small + "disk: {serial: x}\n",
			[]string{`s.yaml:10:1: disk: unknown key here: expected it below profiles[] or below machines[]`}},
		{"a plural", small + "profile:\n  - {name: a, role: worker}\n", []string{`s.yaml:10:1: profile: unknown key: expected "profiles"?`}},
		{"not indented", change("      from: 10.77.0.100\n      to: 10.77.0.199", "    from: 10.77.0.100\n    to: 10.77.0.199\n    leaseTime: 1h"),
			[]string{`s.yaml:7:10: links[0].dhcp: nothing is below it, and beside it from, to, leaseTime: expected them below it, two spaces further in`}},
		{"not indented, optional", small + "cluster:\nname: x\npodSubnet: 10.1.0.0/16\n",
			[]string{`s.yaml:11:1: not YAML: mapping key "name" already defined at [2:1]`}},
		{"not indented, at the top", small + "cluster:\npodSubnet: 10.1.0.0/16\n",
			[]string{`s.yaml:10:9: cluster: nothing is below it, and beside it podSubnet: expected them below it, two spaces further in`}},
		{"nothing below", change("      from: 10.77.0.100\n      to: 10.77.0.199\n", ""),
			[]string{`s.yaml:7:11: links[0].dhcp: nothing is below it: expected from, to below it, or to leave it out`}},
		{"unknown key, near none", change("    dhcp", "    zzzzzzzzzz: 1\n    dhcp"),
			[]string{`s.yaml:7:5: links[0].zzzzzzzzzz: unknown key: expected one of mac, interface, vlan, address, gateway, dhcp`}},
		{"several at once", change("version: 1", "version: x") + "emulated: 7\n", []string{
			`s.yaml:1:10: version: "x": expected a whole number`,
			`s.yaml:10:11: emulated: "7": expected true or false`}},
		{"missing in a nested mapping", change("      to: 10.77.0.199\n", ""),
			[]string{`s.yaml:8:7: links[0].dhcp.to: missing: expected an IPv4 address, as 10.77.0.100`}},
		{"syntax", "version: [1\n", []string{`s.yaml:1:10: not YAML: sequence end token ']' not found`}},
		{"a tab", change("  - interface", "\t- interface"), []string{`s.yaml:5:1: not YAML: found character '\t' that cannot start any token: expected spaces to indent with, no tabs`}},
		{"no space", change("name: r", "name:r"), []string{`s.yaml:2:1: not YAML: non-map value is specified: expected key: value, with a space behind the colon`}},
		{"an odd column", change("    address", "   address"), []string{`s.yaml:6:4: not YAML: value is not allowed in this context: expected a line that is indented as its neighbours are`}},
		{"lines of Windows", strings.ReplaceAll(small+"# comment\nemulated: 7\n", "\n", "\r\n"), []string{`s.yaml:11:11: emulated: "7": expected true or false`}},
		{"unknown key, near one that is there", small + "nmae: x\n", []string{`s.yaml:10:1: nmae: unknown key: expected "name", which is there already?`}},
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
			`s.yaml:6:11: links[0].vlan: 4095: expected 0 to 4094`,
			`s.yaml:11:29: links[1].vlan: -1: expected 0 to 4094`}},
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
		{"pool over everything", change("from: 10.77.0.100", "from: 10.77.0.1") + "      router: 10.77.0.1\nmachines:\n  - {mac: 52:54:00:00:00:01, address: 10.77.0.11}\n",
			[]string{`s.yaml:8:7: links[0].dhcp: the pool holds 10.77.0.2 (the link's own address), 10.77.0.3 (the service address), 10.77.0.1 (the router) and 1 more: expected a pool without them`}},
		{"pool over the link's address", change("10.77.0.2/24", "10.77.0.150/24"),
			[]string{`s.yaml:8:7: links[0].dhcp: the pool holds the link's own address, 10.77.0.150: expected a pool without it`}},
		{"pool over the gateway, which is the router too", change("address: 10.77.0.2/24", "address: 10.77.0.2/24\n    gateway: 10.77.0.199") + "      router: 10.77.0.199\n",
			[]string{`s.yaml:7:14: links[0].gateway: 10.77.0.199 is in the pool: expected an address outside it`}},
		{"the link is elsewhere", change("10.77.0.2/24", "10.78.0.2/24\n    gateway: 10.77.0.1") + `      router: 10.77.0.1
      reservations: [{mac: 52:54:00:00:00:01, address: 10.77.0.9}]
machines:
  - {mac: 52:54:00:00:00:02, address: 10.77.0.20}
  - {mac: 52:54:00:00:00:03, address: 10.77.0.21}
`, []string{`s.yaml:9:7: links[0].dhcp: the pool 10.77.0.100 to 10.77.0.199 is not in the link's network, 10.78.0.0/24: expected address, from and to in one network`}},
		{"a link that is misspelt", change("    address: 10.77.0.2/24", "    adress: 10.77.0.2/24") + "machines:\n  - {mac: 52:54:00:00:00:02, address: 10.77.0.20}\n",
			[]string{`s.yaml:6:5: links[0].adress: unknown key: expected "address"?`}},
		{"nothing is served", "version: 1\nname: r\nserviceAddress: 10.77.0.3\nlinks:\n  - {interface: eth0, address: 10.77.0.2/24}\n" + `machines:
  - {mac: 52:54:00:00:00:02, address: 10.77.0.20}
  - {mac: 52:54:00:00:00:03, address: 10.77.0.21}
  - {mac: 52:54:00:00:00:04, address: 10.77.0.22}
`, []string{`s.yaml:7:39: machines[0].address: 10.77.0.20 is in the network of no link with dhcp, nor are those of 2 more machines: expected an address in one of them, so that the machine finds the boot service`}},
		{"lease time", small + "      leaseTime: 1s\n", []string{`s.yaml:10:18: links[0].dhcp.leaseTime: 1s: expected 10s to 720h0m0s`}},
		{"no lease time", small + "      leaseTime: 0s\n", []string{`s.yaml:10:18: links[0].dhcp.leaseTime: 0s: expected 10s to 720h0m0s`}},
		{"waits", small + "discovery: {wait: 1s}\n", []string{`s.yaml:10:19: discovery.wait: 1s: expected 10s to 720h0m0s`}},
		{"waits for ever", small + "discovery: {wait: 0s}\n", []string{`s.yaml:10:19: discovery.wait: 0s: expected 10s to 720h0m0s`}},
		{"netboot", small + "netboot: {uefi: grub, leaveUEFI: sanboot, leaveBIOS: chainload}\n", []string{
			`s.yaml:10:17: netboot.uefi: "grub": expected shim or ipxe`,
			`s.yaml:10:34: netboot.leaveUEFI: "sanboot": expected exit or chainload or silence`,
			`s.yaml:10:54: netboot.leaveBIOS: "chainload": expected exit or sanboot or silence`}},
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
		{"UUIDs", small + `machines:
  - {uuid: 4C4C4544-0042-3510-8052-B4C04F4D3132}
  - {uuid: 4c4c4544-0042-3510-8052-b4c04f4d3132}
  - {uuid: 44454c4c-4200-1035-8052-b4c04f4d3132}
  - {uuid: 03000200-0400-0500-0006-000700080009}
  - {uuid: ffffffff-ffff-ffff-ffff-ffffffffffff}
`, []string{
			`s.yaml:12:12: machines[1].uuid: 4c4c4544-0042-3510-8052-b4c04f4d3132 is already at machines[0].uuid: expected each UUID once`,
			`s.yaml:13:12: machines[2].uuid: 44454c4c-4200-1035-8052-b4c04f4d3132 is that of machines[0].uuid in the other byte order: expected each machine once`,
			`s.yaml:14:12: machines[3].uuid: 03000200-0400-0500-0006-000700080009 is in the firmware of many boards, whose makers did not bother: expected mac instead, to know the machine by`,
			`s.yaml:15:12: machines[4].uuid: ffffffff-ffff-ffff-ffff-ffffffffffff is in the firmware of many boards, whose makers did not bother: expected mac instead, to know the machine by`}},
		{"a profile that is nowhere, once", small + "machines:\n  - {mac: 52:54:00:00:00:01, profile: x}\n  - {mac: 52:54:00:00:00:02, profile: x}\n  - {mac: 52:54:00:00:00:03, profile: x}\n",
			[]string{`s.yaml:11:39: machines[0].profile: no profile "x", which 2 more machines have: expected one of control-plane, worker`}},
		{"a profile that has a fault itself", small + "profiles:\n  - {nmae: gpu, role: worker}\nmachines:\n  - {mac: 52:54:00:00:00:01, profile: gpu}\n",
			[]string{`s.yaml:11:6: profiles[0].nmae: unknown key: expected "name"?`}},
		{"selectors", small + `profiles:
  - name: a
    role: worker
    selector: {manufacturer: "[Dell", product: 'a\', serial: "*", assetTag: "[]", minCPUs: -1, minMemory: 64, labels: {rack: 7}}
`, []string{
			"s.yaml:13:30: profiles[0].selector.manufacturer: \"[Dell\": expected a text in which * stands for any letters, ? for one, [ab] for one of these; \\[ is a bracket itself",
			"s.yaml:13:48: profiles[0].selector.product: \"a\\\\\": expected a text in which * stands for any letters, ? for one, [ab] for one of these; \\[ is a bracket itself",
			"s.yaml:13:77: profiles[0].selector.assetTag: \"[]\": expected a text in which * stands for any letters, ? for one, [ab] for one of these; \\[ is a bracket itself",
			`s.yaml:13:92: profiles[0].selector.minCPUs: -1: expected at least 0`,
			`s.yaml:13:107: profiles[0].selector.minMemory: "64": expected a size with its unit, as 480GB, 1.92TB or 64GiB`}},
		{"disks", small + `profiles:
  - {name: a, role: worker, disk: {model: "[", path: sda, transport: scsi, minSize: 2TB, maxSize: 1TB}}
machines:
  - {mac: 52:54:00:00:00:01, disk: {path: /dev/disk/by-id/x, transport: USB, maxSize: 8GB}}
  - {mac: 52:54:00:00:00:02, disk: {minSize: 400}}
`, []string{
			"s.yaml:11:43: profiles[0].disk.model: \"[\": expected a text in which * stands for any letters, ? for one, [ab] for one of these; \\[ is a bracket itself",
			`s.yaml:11:54: profiles[0].disk.path: "sda": expected the device's own name, as /dev/sda, or better a serial number or WWN, which do not change`,
			`s.yaml:11:70: profiles[0].disk.transport: "scsi": expected nvme, sata, sas, virtio, fc or iscsi`,
			`s.yaml:11:99: profiles[0].disk.maxSize: 1TB, less than minSize, 2TB: expected at least as much`,
			`s.yaml:13:43: machines[0].disk.path: "/dev/disk/by-id/x": expected the device's own name, as /dev/sda, or better a serial number or WWN, which do not change`,
			`s.yaml:13:73: machines[0].disk.transport: "USB" cannot be installed on: expected nvme, sata, sas, virtio, fc or iscsi`,
			`s.yaml:13:87: machines[0].disk.maxSize: 8GB: expected at least 16GiB, which a node needs`,
			`s.yaml:14:46: machines[1].disk.minSize: "400": expected a size with its unit, as 480GB, 1.92TB or 64GiB`}},
		{"labels and taints", small + `profiles:
  - name: a
    role: worker
    labels:
      example.org/rack: "1"
      node-role.kubernetes.io/worker: ""
      kubernetes.io/hostname: web
      -rack: "1"
      rack: a b
    taints: [gpu:NoSchedule, gpu=1:NoSchedule, "a b:NoExecute", "gpu=1:NoExecute"]
`, []string{
			`s.yaml:16:31: profiles[0].labels.kubernetes.io/hostname: every node's kubelet sets this label itself: expected a domain of your own, as example.org/hostname`,
			`s.yaml:17:14: profiles[0].labels.-rack: no name of a label: expected letters, digits, -, _ and ., at most 63, behind a domain of your own, as example.org/rack`,
			`s.yaml:18:13: profiles[0].labels.rack: "a b": expected letters, digits, -, _ and ., at most 63, the first and last one a letter or digit`,
			`s.yaml:19:30: profiles[0].taints[1]: gpu:NoSchedule is already at profiles[0].taints[0]: expected each key and effect once`,
			`s.yaml:19:48: profiles[0].taints[2]: "a b:NoExecute": expected key=value:effect, the effect NoSchedule, PreferNoSchedule or NoExecute`}},
		{"kernel arguments", small + "profiles:\n  - {name: a, role: worker, kernelArguments: [console=ttyS1, 'a b', root=/dev/sda1, 'a;b', \"\"]}\n", []string{
			`s.yaml:11:62: profiles[0].kernelArguments[1]: "a b": expected one argument, without spaces, quotes and \ $ ; & | < > { } * ? [ ] #`,
			`s.yaml:11:69: profiles[0].kernelArguments[2]: "root=/dev/sda1" is Rackseed's own: expected another argument`,
			`s.yaml:11:85: profiles[0].kernelArguments[3]: "a;b": expected one argument, without spaces, quotes and \ $ ; & | < > { } * ? [ ] #`,
			`s.yaml:11:92: profiles[0].kernelArguments[4]: "": expected one argument, without spaces, quotes and \ $ ; & | < > { } * ? [ ] #`}},
		{"addresses that no network card has", change("interface: eth0", "mac: 01:00:5e:00:00:01") + `      reservations: [{mac: "00:00:00:00:00:00", address: 10.77.0.9}]
machines:
  - {mac: ff:ff:ff:ff:ff:ff}
  - {mac: ff:ff:ff:ff:ff:ff}
`, []string{
			`s.yaml:5:10: links[0].mac: 01:00:5e:00:00:01 is a multicast address: expected the hardware address of one network card`,
			`s.yaml:10:28: links[0].dhcp.reservations[0].mac: 00:00:00:00:00:00 is nobody's: expected the hardware address of one network card`,
			`s.yaml:12:11: machines[0].mac: ff:ff:ff:ff:ff:ff is the broadcast address: expected the hardware address of one network card`,
			`s.yaml:13:11: machines[1].mac: ff:ff:ff:ff:ff:ff is the broadcast address: expected the hardware address of one network card`}},
		{"an entry that was copied", small + "machines:\n  - {mac: 52:54:00:00:00:01, name: a, address: 10.77.0.9}\n  - {mac: 52:54:00:00:00:01, name: a, address: 10.77.0.9, profile: worker}\n",
			[]string{`s.yaml:12:6: machines[1]: mac, name and address are those of machines[0]: expected each machine once`}},
		{"an entry without anything", small + "profiles:\n  -\n", []string{`s.yaml:11:5: profiles[0]: nothing is below it: expected name, role below it, or to leave it out`}},
		{"a newer format", change("version: 1", "version: 2") + "planets: 9\nstars: {}\n", []string{`s.yaml:1:10: version: 2: expected 1`}},
		{"not UTF-8", change("name: r", "name: caf\xe9"), []string{`s.yaml:2:10: a letter that is not UTF-8: expected a file that the editor saved as UTF-8`}},
		{"a name with a line in it", change("name: r", `name: "a\nb"`), []string{`s.yaml:2:7: name: "a\nb": expected a name of 1 to 63 letters`}},
		{"a network that is too large", strings.ReplaceAll(small, "10.77.0.2/24", "10.77.0.2/8"),
			[]string{`s.yaml:6:14: links[0].address: 10.0.0.0/8 overlaps the pods' 10.244.0.0/16 and the services' 10.96.0.0/16: expected a smaller network here, or other ones in cluster.podSubnet and cluster.serviceSubnet`}},
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

// TestWarningsAreFew: a file may be one in which each line is warned of.
func TestWarningsAreFew(t *testing.T) {
	_, list, err := Examine("s.yaml", []byte(small), func(machine.Site) (_, warnings []Problem) {
		return nil, slices.Repeat([]Problem{{Path: "links", Text: "hm"}}, maxProblems+9)
	})
	if err != nil || len(list) != maxProblems+1 || list[maxProblems].Warning("s.yaml") != "s.yaml:5:3: warning: here begin 9 more warnings" {
		t.Errorf("%d warnings, the last is %+v, %v", len(list), list[len(list)-1], err)
	}
}

func TestWarnings(t *testing.T) {
	const keys = "sshKeys:\n  - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcbxV5fXHyg+m0o4ywGhoi5fA4CHUUFHcqnLBxL9nzG ann\n"
	unserved := strings.Split(small, "    dhcp:")[0]
	for _, test := range []struct {
		name, src string
		want      []string
	}{
		{"nothing", small + "machines:\n  - {mac: 52:54:00:00:00:01}\nprofiles:\n  - {name: a, role: control-plane}\n", nil},
		{"approved beforehand", small + "machines:\n  - {mac: 52:54:00:00:00:01}\n  - {mac: 52:54:00:00:00:02, name: n2, approve: true}\n  - {uuid: 4c4c4544-0042-3510-8052-b4c04f4d3132, approve: true}\n",
			[]string{`s.yaml:12:49: warning: machines[1].approve: installed WITHOUT ASKING, once, onto an empty disk: n2 (52:54:00:00:00:02), 4c4c4544-0042-3510-8052-b4c04f4d3132`}},
		{"nobody served, no cluster", unserved + "profiles:\n  - {name: a, role: worker}\n", []string{
			`s.yaml:5:3: warning: links: NO link has dhcp: no machine is served`,
			`s.yaml:8:3: warning: profiles: NO profile has the role control-plane: no machine can start a cluster`}},
		{"for tests", small + "emulated: true\nmemoryOnly: true\ndiscovery: {always: true}\n", []string{
			`s.yaml:10:11: warning: emulated: timeouts are those of emulated machines: never for real ones, whose faults are noticed late then`,
			`s.yaml:11:13: warning: memoryOnly: machines are served even where NOTHING IS KEPT: switched off, the boot service forgets them and the cluster's keys; for tests`,
			`s.yaml:12:21: warning: discovery.always: ANY machine that netboots here is looked at, for ever: not where a production server may netboot`}},
		{"an example, with too few addresses", strings.NewReplacer("interface: eth0", "mac: 00:00:5e:00:53:01", "10.77.0.199", "10.77.0.100").Replace(small) +
			"machines:\n  - {mac: 52:54:00:00:00:01}\n  - {mac: 52:54:00:00:00:02}\n", []string{
			`s.yaml:5:10: warning: links[0].mac: 00:00:5e:00:53:01 is an example's, and no machine's: write the real one`,
			`s.yaml:11:3: warning: machines: 2 are listed, and the links' dhcp can give 1 an address at once`}},
		{"a handoff that never starts", small + "handoff: auto\n" + keys, []string{
			`s.yaml:10:10: warning: handoff: it never starts by itself: that waits for the machines that are listed, and NONE is; start it with rackseed handoff start`}},
		{"a handoff that starts", small + "handoff: auto\nmachines: [{mac: 52:54:00:00:00:01}]\n" + keys, nil},
		{"a handoff by itself, and nobody is root", small + "handoff: auto\nmachines: [{mac: 52:54:00:00:00:01}]\n", []string{
			`s.yaml:10:10: warning: handoff: without sshKeys NOBODY is root on a node: rackseed recover and break-glass need that once the boot service moved by itself and the stick is pulled`}},
		{"one link of two served", small + "  - {interface: eth1, address: 10.78.0.2/24}\n", nil},
		{"the appliance's own", strings.Replace(small, "interface: eth0", "mac: 52:54:00:00:00:01", 1) + "      reservations: [{mac: 52:54:00:00:00:01, address: 10.77.0.9}]\n" +
			"  - {mac: 52:54:00:00:00:01, vlan: 7, address: 10.78.0.2/24}\nmachines:\n  - {mac: 52:54:00:00:00:01}\n", []string{
			`s.yaml:10:28: warning: links[0].dhcp.reservations[0].mac: 52:54:00:00:00:01 is the appliance's own (links[0].mac), which gets nothing from itself: only after the boot service moved and its stick was pulled`,
			`s.yaml:13:11: warning: machines[0].mac: 52:54:00:00:00:01 is the appliance's own (links[0].mac), which gets nothing from itself: only after the boot service moved and its stick was pulled`}},
	} {
		s, list, err := Examine("s.yaml", []byte(test.src))
		var got, placeless, inForce []string
		for _, p := range list {
			got = append(got, p.Warning("s.yaml"))
			placeless = append(placeless, Problem{Path: p.Path, Text: p.Text}.Warning("s.yaml"))
		}
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: %v\n%s\nwant\n%s", test.name, err, strings.Join(got, "\n"), strings.Join(test.want, "\n"))
		}
		// Of the site in force the same is said, with its defaults and without its text.
		for _, p := range WarningsInForce(s) {
			inForce = append(inForce, p.Warning("s.yaml"))
		}
		slices.Sort(placeless)
		slices.Sort(inForce)
		if !slices.Equal(inForce, placeless) {
			t.Errorf("%s, in force:\n%s\nwant\n%s", test.name, strings.Join(inForce, "\n"), strings.Join(placeless, "\n"))
		}
	}
}

// What a further check finds in a text has its place in the file, where the text
// stands there as it is, and else says it in words.
func TestPlacesWithinTexts(t *testing.T) {
	also := func(s machine.Site) (problems, warnings []Problem) {
		for i, p := range s.Profiles {
			line := 1 + strings.Count(p.Ignition[:strings.Index(p.Ignition, "HERE")], "\n")
			column := strings.Index(strings.Split(p.Ignition, "\n")[line-1], "HERE") + 1
			warnings = append(warnings, Problem{Line: line, Column: column, Path: fmt.Sprintf("profiles[%d].ignition.a[0]", i), Text: "x"})
		}
		return nil, warnings
	}
	src := small + "profiles:\n" +
		"  - {name: a, role: control-plane, ignition: 'HERE'}\n" + // line 11
		"  - name: b\n    role: worker\n    ignition: |  # a comment\n\n      {\n        HERE\n" + // 12 to 17
		"  - name: c\n    role: worker\n    ignition: |1-\n       HERE\n" + // 18 to 21: the text begins with two blanks
		"  - name: d\n    role: worker\n    ignition: >\n      {\n      HERE\n" // 22 to 26: one line of text
	src = strings.ReplaceAll(src, "\n", "\r\n")
	_, list, err := Examine("s.yaml", []byte(src), also)
	var got []string
	for _, p := range list {
		got = append(got, p.Warning("s"))
	}
	want := []string{
		"s:11:46: warning: profiles[0].ignition.a[0]: x (its line 1, column 1)",
		"s:17:9: warning: profiles[1].ignition.a[0]: x",
		"s:21:8: warning: profiles[2].ignition.a[0]: x",
		"s:24:15: warning: profiles[3].ignition.a[0]: x (its line 1, column 3)",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v\n%s\nwant\n%s", err, strings.Join(got, "\n"), strings.Join(want, "\n"))
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
		if err == nil || !strings.HasPrefix(err.Error(), "s.yaml:1:") || !strings.Contains(err.Error(), ": lists and mappings are nested too deep: expected at most 1000") {
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

// Whatever a file says: no panic, each problem has its place, and what was
// taken is taken again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte("links: [[[[{a: b}]]]]"))
	f.Add([]byte("a: &x [*x]\n<<: *x\n? y\n"))
	f.Add([]byte(small + "cluster:\npodSubnet: 1\nprofiles:\n  - {name: a, role: worker, selector: {minMemory: 64GiB}, disk: {maxSize: 2TB}, labels: {a/b: \"1\"}, taints: [a=b:NoExecute]}\n"))
	f.Add([]byte("version: 1\r\nname: \"\\u00e9\\t\"\r\nlinks:\r\n-\r\n- mac:\r\n"))
	for _, file := range []string{"../../docs/site.example.yaml"} {
		src, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
		f.Add(inForce(src))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		s, err := Parse("s.yaml", src)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || len(e.Problems) == 0 {
				t.Fatalf("error without a problem: %v", err)
			}
			for _, p := range e.Problems {
				if p.Text == "" || (p.Line < 1 || p.Column < 1) && len(src) <= MaxBytes {
					t.Errorf("problem %+v has no place or no text", p)
				}
			}
			return
		}
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse("s.yaml", text)
		if err != nil {
			t.Fatalf("it was taken, and is not any more: %v\n%s", err, text)
		}
		if back, err := json.Marshal(again); err != nil || !bytes.Equal(back, text) {
			t.Errorf("%v: it was\n%s\nand is\n%s", err, text, back)
		}
		Summary(s)
	})
}
