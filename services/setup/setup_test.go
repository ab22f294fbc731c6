package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/rackseed/rackseed/services/dhcp/foreign"
	"github.com/rackseed/rackseed/services/internal/frame"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/site"
)

const goodSite = `version: 1
name: lab
serviceAddress: 10.77.0.3
links:
  - mac: 52:54:00:00:00:01
    address: 10.77.0.2/24
    dhcp:
      from: 10.77.0.100
      to: 10.77.0.199
`

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestDecide(t *testing.T) {
	named := func(name string) string { return strings.Replace(goodSite, "lab", name, 1) }
	given := func(text string) content { return content{"site.yaml", []byte(text), nil} }
	kept := func(text string) content { return content{"kept site.yaml", []byte(text), nil} }
	missing := func(name string) content { return content{name, nil, fs.ErrNotExist} }
	bad := strings.Replace(goodSite, "10.77.0.100", "10.77.0.300", 1)
	for _, c := range []struct {
		name        string
		given, kept content
		want        Source
		site        string
		problems    []string // parts, one a problem
	}{
		{"the given one wins", given(named("a")), kept(named("b")), Given, "a", nil},
		{"the given one alone", given(named("a")), missing("kept"), Given, "a", nil},
		{"the given one, beside a bad one", given(named("a")), kept(bad), Given, "a", nil},
		{"the kept one alone", missing("site.yaml"), kept(named("b")), Kept, "b", nil},
		{"the kept one, while the given one is bad", given(bad), kept(named("b")), Kept, "b", []string{"site.yaml:8:13"}},
		{"the kept one, while the given one cannot be read", content{"site.yaml", nil, errors.New("input/output error")}, kept(named("b")), Kept, "b", []string{"cannot be read: input/output error"}},
		{"none", missing("site.yaml"), missing("kept"), Nowhere, "", []string{"there is none"}},
		{"all of it comments, as on a new stick", given("\xef\xbb\xbf# version: 1\r\n\r\n  # name: x\r\n"), missing("kept"), Nowhere, "", []string{"says nothing yet"}},
		{"comments, and the kept one", given("# version: 1\n"), kept(named("b")), Kept, "b", nil},
		{"a bad one alone", given(bad), missing("kept"), Nowhere, "", []string{"site.yaml:8:13"}},
		{"two bad ones", given(bad), kept("links: ["), Nowhere, "", []string{"site.yaml:8:13", "kept site.yaml:1:"}},
		{"a bad kept one alone", missing("site.yaml"), kept(bad), Nowhere, "", []string{"kept site.yaml:8:13"}},
		{"Ignition", given(goodSite + "profiles:\n  - name: a\n    role: worker\n    ignition: '{\"ignition\":{\"version\":\"0.1\"}}'\n"), missing("kept"), Nowhere, "", []string{"site.yaml:13:15: profiles[0].ignition"}},
	} {
		now := decide(c.given, c.kept)
		if now.Source != c.want || now.Site.Name != c.site || len(now.Problems) != len(c.problems) || (now.Text == nil) != (c.want == Nowhere) {
			t.Errorf("%s: %s %q, %q", c.name, now.Source, now.Site.Name, now.Problems)
			continue
		}
		for i, part := range c.problems {
			if !strings.Contains(now.Problems[i], part) {
				t.Errorf("%s: problem %q lacks %q", c.name, now.Problems[i], part)
			}
		}
	}
}

// What is wrong in an Ignition has its own places in the site file.
func TestIgnition(t *testing.T) {
	profile := goodSite + "profiles:\n  - name: a\n    role: control-plane\n    ignition: |\n      {\"ignition\": {\"version\": \"3.4.0\"},\n       \"storage\": {\"files\": [{\"path\": \"/%s/x\", \"what\": 1}]}}\n"
	s, warnings, err := Examine("s.yaml", fmt.Appendf(nil, profile, "etc"))
	if err != nil || s.Profiles[0].Name != "a" || len(warnings) != 1 || warnings[0].Warning("s") != "s:15:49: warning: profiles[0].ignition.storage.files[0].what: unknown key" {
		t.Errorf("%+v, %v", warnings, err)
	}
	if in := Warnings(s); len(in) != 1 || in[0].Warning("Site file") != "Site file: warning: profiles[0].ignition.storage.files[0].what: unknown key (its line 2, column 43)" {
		t.Errorf("in force: %+v", in)
	}
	_, warnings, err = Examine("s.yaml", fmt.Appendf(nil, profile, "usr"))
	if want := `s.yaml:15:39: profiles[0].ignition.storage.files[0].path: "/usr/x" is read-only on a node; /etc, /var, /root can be written`; len(warnings) != 0 || err == nil || err.Error() != want {
		t.Errorf("%v, %v; want %s", warnings, err, want)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	given := filepath.Join(dir, "given.yaml")
	f := FilesOf(given, dir)
	watch := Watch{Files: f}
	look := func(want Source, changed bool) InForce {
		t.Helper()
		now, is := watch.Look()
		if now.Source != want || is != changed {
			t.Errorf("in force: %s, changed %t; want %s, %t", now.Source, is, want, changed)
		}
		return now
	}
	look(Nowhere, true)
	look(Nowhere, false)

	noted := machine.SiteLink{MAC: "52:54:00:00:00:01", VLAN: 5, Address: netip.MustParsePrefix("10.77.0.2/24"), Gateway: ip("10.77.0.1")}
	if _, ok, err := f.ReadLink(); ok || err != nil {
		t.Errorf("a link before one was kept: %t, %v", ok, err)
	}
	if err := f.KeepLink(noted); err != nil {
		t.Fatal(err)
	}
	if l, ok, err := f.ReadLink(); !ok || err != nil || !reflect.DeepEqual(l, noted) {
		t.Errorf("link %+v, %t, %v", l, ok, err)
	}

	var problems *site.Error
	if _, err := f.Keep([]byte("links: [")); !errors.As(err, &problems) || len(problems.Problems) != 1 {
		t.Errorf("a bad file: %v", err)
	}
	look(Nowhere, false)
	if s, err := f.Keep([]byte(goodSite)); err != nil || s.Name != "lab" {
		t.Fatal(s, err)
	}
	if now := look(Kept, true); string(now.Text) != goodSite || !now.GivenMissing {
		t.Errorf("kept: %q", now.Text)
	}
	if _, ok, err := f.ReadLink(); ok || err != nil {
		t.Errorf("the noted link outlived setup: %t, %v", ok, err)
	}

	other := strings.Replace(goodSite, "lab", "other", 1)
	if err := os.WriteFile(given, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	look(Given, true)
	if _, err := f.Keep([]byte(goodSite)); !errors.Is(err, ErrGiven) {
		t.Errorf("beside a valid given file: %v", err)
	}
	if err := f.KeepGiven([]byte(other)); err != nil {
		t.Error(err)
	}
	if err := os.Remove(given); err != nil {
		t.Fatal(err)
	}
	if now := look(Kept, true); now.Site.Name != "other" {
		t.Errorf("after the given file is gone: %q", now.Site.Name)
	}
	if none := (Files{Kept: filepath.Join(dir, "no")}).Read(); none.Source != Nowhere || !strings.Contains(none.Problems[0], "site file: there is none") {
		t.Errorf("no file given: %+v", none)
	}
}

func TestDraft(t *testing.T) {
	whole := Draft{
		MAC: "52:54:00:00:00:01", VLAN: 20, Address: "10.77.0.2/24", Gateway: "10.77.0.1", Service: "10.77.0.3", DHCP: true,
		From: "10.77.0.100", To: "10.77.0.199", DNS: []string{"10.77.0.1", "9.9.9.9"}, Name: "a: b # c", MemoryOnly: true,
		SSHKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcbxV5fXHyg+m0o4ywGhoi5fA4CHUUFHcqnLBxL9nzG ann@example.org",
	}
	s, err := Check("site.yaml", whole.YAML())
	if err != nil {
		t.Fatalf("%v\n%s", err, whole.YAML())
	}
	if again := DraftOf(s); !reflect.DeepEqual(again, whole) {
		t.Errorf("made\n%+v\nof\n%+v", again, whole)
	}
	if lost := Lost(s); lost != nil {
		t.Errorf("lost: %q", lost)
	}
	s.Machines = []machine.ListedMachine{{MAC: "52:54:00:00:00:09"}}
	s.Links[0].DHCP.Router = ip("10.77.0.7")
	if lost := Lost(s); !reflect.DeepEqual(lost, []string{"links", "machines"}) {
		t.Errorf("lost: %q", lost)
	}
	if lost := Lost(machine.Site{}); lost != nil {
		t.Errorf("of no site was lost: %q", lost)
	}
	// Names that YAML reads as something else.
	for _, name := range []string{"true", "no", "~", "12", "1e3", "-", "[x", "a: b", "x #", "\"", "'", "&a", "*a", "é", "a\\tb", " a", "a "} {
		d := whole
		d.Name = name
		if s, err := Check("site.yaml", d.YAML()); err != nil || s.Name != name {
			t.Errorf("name %q: %q, %v", name, s.Name, err)
		}
	}
}

// A slip is told by the rules of the site file, at its own question only.
func TestDraftProblem(t *testing.T) {
	d := Draft{MAC: "52:54:00:00:00:01", Address: "10.77.0.2/24"}
	for _, c := range []struct {
		change func(*Draft)
		paths  []string
		want   string
	}{
		{func(d *Draft) {}, []string{"links[0].address", "links[0].vlan"}, ""},
		{func(d *Draft) { d.Address = "10.77.0.300/24" }, []string{"links[0].address"}, "expected an IPv4 address with its prefix length"},
		{func(d *Draft) { d.Address = "10.77.0.300/24" }, []string{"serviceAddress"}, "missing"},
		{func(d *Draft) { d.Service = "10.78.0.1" }, []string{"serviceAddress"}, "no link's network"},
		{func(d *Draft) {
			d.DHCP, d.From, d.To, d.DNS = true, "10.77.0.9", "10.77.0.20", []string{"9.9.9.9", "x"}
		}, []string{"links[0].dhcp.dns"}, `"x": expected an IPv4`},
		{func(d *Draft) { d.DHCP, d.From = true, "10.77.0.9" }, []string{"links[0].dhcp", "links[0].dhcp.from"}, ""},
		{func(d *Draft) { d.SSHKey = "x\ny" }, []string{"sshKeys"}, "not a public key"},
	} {
		try := d
		c.change(&try)
		err := try.Problem(c.paths...)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v at %v: %v, want %q", try, c.paths, err, c.want)
		}
	}
}

func TestProposals(t *testing.T) {
	whole := func(d Draft) string {
		return strings.Join([]string{d.Address, d.Gateway, d.Service, d.From, d.To}, " ")
	}
	offer := Offer{Server: ip("10.0.0.254"), Address: ip("10.0.0.23"), Network: netip.MustParsePrefix("10.0.0.0/24"), Router: ip("10.0.0.1"), DNS: []netip.Addr{ip("10.0.0.253")}}
	owners := func(list ...string) map[netip.Addr]string {
		m := map[netip.Addr]string{}
		for _, a := range list {
			m[ip(a)] = "52:54:00:00:00:07"
		}
		return m
	}
	for _, c := range []struct {
		name  string
		facts Facts
		draft Draft
		want  string
	}{
		{"nobody answers", Facts{Quiet: true}, Draft{}, "10.77.0.2/24  10.77.0.3 10.77.0.100 10.77.0.199"},
		{"it is not known who answers", Facts{}, Draft{}, "10.77.0.2/24  10.77.0.3  "},
		{"a server answers", Facts{Offers: []Offer{offer}}, Draft{}, "10.0.0.252/24 10.0.0.1 10.0.0.251  "},
		{"a server answers, and DHCP is wanted all the same", Facts{Offers: []Offer{offer}}, Draft{DHCP: true}, "10.0.0.252/24 10.0.0.1 10.0.0.251 10.0.0.100 10.0.0.199"},
		{"ours is elsewhere", Facts{Quiet: true, Elsewhere: []netip.Prefix{netip.MustParsePrefix("10.76.0.0/15")}}, Draft{}, "10.78.0.2/24  10.78.0.3 10.78.0.100 10.78.0.199"},
		{"some are taken", Facts{Quiet: true, Owners: owners("10.77.0.2", "10.77.0.5", "10.77.0.130")}, Draft{}, "10.77.0.4/24  10.77.0.6 10.77.0.131 10.77.0.199"},
		{"the person's address", Facts{Quiet: true}, Draft{Address: "192.0.2.150/24", Gateway: "192.0.2.151"}, "192.0.2.150/24 192.0.2.151 192.0.2.152 192.0.2.100 192.0.2.149"},
		{"a small network", Facts{Quiet: true}, Draft{Address: "192.0.2.2/29"}, "192.0.2.2/29  192.0.2.3 192.0.2.4 192.0.2.6"},
		{"at its end", Facts{Quiet: true}, Draft{Address: "192.0.2.6/29", Gateway: "192.0.2.5"}, "192.0.2.6/29 192.0.2.5 192.0.2.4 192.0.2.1 192.0.2.3"},
		{"the smallest one", Facts{Quiet: true}, Draft{Address: "192.0.2.1/30"}, "192.0.2.1/30  192.0.2.2  "},
		{"a large one", Facts{Quiet: true}, Draft{Address: "10.200.0.1/8"}, "10.200.0.1/8  10.200.0.2 10.0.0.100 10.0.0.199"},
		{"a half", Facts{Quiet: true}, Draft{Address: "192.0.2.200/25"}, "192.0.2.200/25  192.0.2.201 192.0.2.202 192.0.2.254"},
		{"a slip", Facts{Quiet: true}, Draft{Address: "192.0.2"}, "192.0.2    "},
		{"no network at all", Facts{Quiet: true}, Draft{Address: "192.0.2.1/32"}, "192.0.2.1/32    "},
		{"what the person said stays", Facts{Quiet: true}, Draft{Address: "192.0.2.1/24", Service: "192.0.2.100", From: "192.0.2.7", To: "192.0.2.9"}, "192.0.2.1/24  192.0.2.100 192.0.2.7 192.0.2.9"},
	} {
		got := c.facts.Fill(c.draft)
		if whole(got) != c.want {
			t.Errorf("%s: %q, want %q", c.name, whole(got), c.want)
		}
		asked := map[netip.Addr]bool{}
		for _, a := range c.facts.Ask(c.draft) {
			asked[a] = true
		}
		if p, err := netip.ParsePrefix(got.Address); err == nil && c.draft.Address == "" && !asked[p.Addr()] {
			t.Errorf("%s: %s is proposed without having been asked for", c.name, got.Address)
		}
		for _, proposed := range []struct{ was, is string }{{c.draft.Service, got.Service}, {c.draft.From, got.From}, {c.draft.To, got.To}} {
			if proposed.was == "" && proposed.is != "" && !asked[ip(proposed.is)] {
				t.Errorf("%s: %s is proposed without having been asked for", c.name, proposed.is)
			}
		}
	}
	if got := (Facts{Offers: []Offer{offer}}).Fill(Draft{DHCP: true}); !reflect.DeepEqual(got.DNS, []string{"10.0.0.253"}) || got.Name != DefaultName {
		t.Errorf("name servers %q, name %q", got.DNS, got.Name)
	}
}

// reply is a frame from a server, as an answer to a frame of ours.
func reply(t *testing.T, discover []byte, kind dhcpv4.MessageType, more ...dhcpv4.Modifier) []byte {
	t.Helper()
	f, err := frame.ParseUDP(discover)
	if err != nil {
		t.Fatal(err)
	}
	p, err := dhcpv4.FromBytes(f.Payload)
	if err != nil {
		t.Fatal(err)
	}
	r, err := dhcpv4.NewReplyFromRequest(p, append([]dhcpv4.Modifier{dhcpv4.WithMessageType(kind)}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	return frame.UDP(net.HardwareAddr{2, 0, 0, 0, 0, 0xaa}, broadcast, netip.MustParseAddrPort("10.0.0.9:67"), netip.MustParseAddrPort("255.255.255.255:68"), r.ToBytes())
}

func TestAsking(t *testing.T) {
	a := &asking{hw: net.HardwareAddr{2, 0, 0, 0, 0, 1}}
	sent, err := a.discovers()
	if err != nil || len(sent) != 2 {
		t.Fatal(len(sent), err)
	}
	for _, b := range sent {
		f, err := frame.ParseUDP(b)
		if err != nil || f.To != servers || f.From != nobody {
			t.Fatalf("sent %+v, %v", f, err)
		}
		p, err := dhcpv4.FromBytes(f.Payload)
		if err != nil || p.MessageType() != dhcpv4.MessageTypeDiscover {
			t.Fatal(p, err)
		}
		if _, _, is := foreign.Probe(p); !is {
			t.Error("other Rackseeds do not take it for a probe")
		}
	}
	with := func(server string) dhcpv4.Modifier {
		return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.ParseIP(server)))
	}
	full := []dhcpv4.Modifier{
		with("10.0.0.1"), dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 23)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
		dhcpv4.WithRouter(net.IPv4(10, 0, 0, 1)), dhcpv4.WithDNS(net.IPv4(10, 0, 0, 2), net.IPv4(9, 9, 9, 9)),
	}
	a.take(reply(t, sent[1], dhcpv4.MessageTypeOffer, with("10.0.0.5")))
	a.take(reply(t, sent[0], dhcpv4.MessageTypeOffer, full...))
	a.take(reply(t, sent[0], dhcpv4.MessageTypeOffer, full...)) // again
	a.take(reply(t, sent[0], dhcpv4.MessageTypeOffer, dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 99)), dhcpv4.WithNetmask(net.CIDRMask(0, 32))))
	if want := []Offer{
		{Server: ip("10.0.0.5"), MAC: "02:00:00:00:00:aa"},
		{Server: ip("10.0.0.1"), MAC: "02:00:00:00:00:aa", Address: ip("10.0.0.23"), Network: netip.MustParsePrefix("10.0.0.0/24"), Router: ip("10.0.0.1"), DNS: []netip.Addr{ip("10.0.0.2"), ip("9.9.9.9")}},
		{Server: ip("10.0.0.9"), MAC: "02:00:00:00:00:aa", Address: ip("10.0.0.99")},
	}; !reflect.DeepEqual(a.offers, want) {
		t.Errorf("offers\n%+v\nwant\n%+v", a.offers, want)
	}
	if got, want := a.offers[1].String(), "DHCP server 10.0.0.1 (02:00:00:00:00:aa) offers 10.0.0.23/24, router 10.0.0.1, DNS 10.0.0.2, 9.9.9.9"; got != want {
		t.Errorf("%q", got)
	}

	// Another Rackseed.
	another := &asking{hw: a.hw, ids: a.ids}
	another.take(reply(t, sent[0], dhcpv4.MessageTypeOffer, with("10.0.0.3"), foreign.Self{Cluster: "c-1", Site: "b\x1b\u00e9"}.Answer))
	if len(another.offers) != 1 || another.offers[0].String() != `another Rackseed appliance, 10.0.0.3 (02:00:00:00:00:aa), of site "b??"` {
		t.Errorf("another Rackseed: %q", another.offers)
	}

	// What is no answer to us, and more than can be kept.
	other := &asking{hw: a.hw}
	theirs, err := other.discovers()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{nil, sent[0], reply(t, theirs[0], dhcpv4.MessageTypeOffer, full...), reply(t, sent[0], dhcpv4.MessageTypeNak), sent[0][:60]} {
		a.take(b)
	}
	if len(a.offers) != 3 {
		t.Errorf("%d offers", len(a.offers))
	}
	for i := range 3 * maxOffers {
		a.take(reply(t, sent[0], dhcpv4.MessageTypeOffer, with(ip("10.1.0.0").String()), with(netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}).String())))
	}
	if len(a.offers) != maxOffers {
		t.Errorf("%d offers were kept", len(a.offers))
	}
}

func TestAnswers(t *testing.T) {
	for want, f := range map[string]Found{
		"not asked: no carrier": {},
		"nobody":                {Link: Link{Carrier: true}},
		"not asked: it is down": {Link: Link{Carrier: true}, Fault: "it is down"},
		"DHCP server 10.0.0.5 (x) offers no address, only netboot (ProxyDHCP)": {Link: Link{Carrier: true}, Offers: []Offer{{Server: ip("10.0.0.5"), MAC: "x"}}},
	} {
		if got := f.Answers(); !reflect.DeepEqual(got, []string{want}) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
