package form

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/setup"
)

var update = flag.Bool("update", false, "write the golden files anew")

// room is what a form finds out.
type room struct {
	links  [][]setup.Found // at each look; the last one stays
	vlans  map[int][]setup.Offer
	owners map[netip.Addr]string
	arp    error
	keep   []error // at each try; then it is kept

	kept Want // KeepLink or KeepSite that was kept
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

var (
	free = setup.Found{Link: setup.Link{Name: "eth0", MAC: "52:54:00:77:00:01", Driver: "virtio_net", Mbit: 1000, Carrier: true}}
	dark = setup.Found{Link: setup.Link{Name: "eth1", MAC: "52:54:00:77:00:02", Driver: "e1000e"}}
	// foreign is a network that somebody else runs.
	foreign = setup.Found{
		Link: setup.Link{Name: "eth2", MAC: "52:54:00:77:00:03", Driver: "bnxt_en", Mbit: 25000, Carrier: true},
		Offers: []setup.Offer{
			{Server: ip("10.0.0.1"), MAC: "52:54:00:00:00:aa", Address: ip("10.0.0.23"), Network: netip.MustParsePrefix("10.0.0.0/24"), Router: ip("10.0.0.1"), DNS: []netip.Addr{ip("10.0.0.1"), ip("9.9.9.9")}},
			{Server: ip("10.0.0.5"), MAC: "52:54:00:00:00:bb"},
		},
	}
	rack = []setup.Found{dark, foreign, free}
)

// play plays a form to its end, or to that of the lines, and returns what was
// to be read, with what was typed.
func play(t *testing.T, r *room, o Options, lines ...string) string {
	t.Helper()
	f := New(o)
	var b strings.Builder
	for range 200 {
		want := f.Want()
		if busy := Busy(want); busy != "" {
			b.WriteString(busy + "\n")
		}
		switch w := want.(type) {
		case Links:
			found := r.links[0]
			if len(r.links) > 1 {
				r.links = r.links[1:]
			}
			f.LearnLinks(found, nil)
		case Network:
			offers, ok := r.vlans[w.VLAN]
			var err error
			if !ok {
				err = errors.New("VLAN cannot be made")
			}
			f.LearnNetwork(offers, err)
		case Owners:
			f.LearnOwners(w.Addresses, r.owners, r.arp)
		case KeepLink, KeepSite:
			if len(r.keep) > 0 {
				err := r.keep[0]
				r.keep = r.keep[1:]
				f.LearnKept(err)
				continue
			}
			r.kept = w
			f.LearnKept(nil)
		case Leave:
			b.WriteString(strings.Join(w.Text, "\n") + "\n")
			if len(lines) > 0 {
				t.Errorf("the form ended before %q was typed", lines)
			}
			return b.String()
		case nil:
			p := f.Page()
			for _, l := range p.Lines {
				if utf8.RuneCountInString(l) > Width && !strings.HasPrefix(l, "  ") {
					t.Errorf("line %q is wider than %d", l, Width)
				}
			}
			b.WriteString(strings.Join(p.Lines, "\n") + "\n" + p.Prompt)
			if len(lines) == 0 {
				b.WriteString("\n")
				return b.String()
			}
			b.WriteString(lines[0] + "\n")
			f.Answer(lines[0])
			lines = lines[1:]
		}
	}
	t.Fatal("the form does not end")
	return ""
}

// enter is Enter, n times.
func enter(n int) []string { return make([]string, n) }

func script(parts ...any) (lines []string) {
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			lines = append(lines, p)
		case []string:
			lines = append(lines, p...)
		}
	}
	return lines
}

// Conversations, as they are to be read.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		name  string
		room  room
		o     Options
		lines []string
	}{
		{"all-proposed", room{links: [][]setup.Found{rack}}, Options{}, script(enter(12), "yes")},
		{"foreign", room{links: [][]setup.Found{rack}}, Options{}, script("2", enter(9), "yes")},
		{"web", room{links: [][]setup.Found{rack}, vlans: map[int][]setup.Offer{20: nil}}, Options{},
			script("eth0", "20", "192.0.2.7/26", "192.0.2.1", "web")},
		{"slips", room{links: [][]setup.Found{{}, rack}, owners: map[netip.Addr]string{ip("10.77.0.2"): "52:54:00:00:00:01", ip("10.77.0.150"): "52:54:00:00:00:02"}, keep: []error{errors.New("no space left on device")}}, Options{},
			script("look", "eth9", "3", "4095", "x", "0", "10.77.0.300/24", "10.77.0.2/24", "", "10.78.0.1", "10.77.0.1", "console", "here", "10.77.0.4", "",
				"maybe", "yes", "10.77.0.3", "back", "yes", "10.77.0.120", "10.77.0.110", "10.77.0.160", "1.1.1.1 dns", "1.1.1.1, 9.9.9.9", "true", "ssh-rsa AAAA", "-", "", "YES", "back", "", "yes", "yes")},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := play(t, &c.room, c.o, c.lines...)
			file := filepath.Join("testdata", c.name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			if s, ok := c.room.kept.(KeepSite); ok {
				if _, err := setup.Check("site.yaml", s.Text); err != nil {
					t.Errorf("what was kept is no site file: %v", err)
				}
			} else if _, ok := c.room.kept.(KeepLink); !ok {
				t.Error("nothing was kept")
			}
		})
	}
}

// What the form does in conditions that are told by a part of what it says.
func TestConditions(t *testing.T) {
	site := func(more string) machine.Site {
		s, err := setup.Check("site.yaml", []byte(`{version: 1, name: old, serviceAddress: 10.1.0.9, links: [{mac: "52:54:00:77:00:01", address: 10.1.0.7/24, dhcp: {from: 10.1.0.20, to: 10.1.0.30}}]`+more+"}"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before, rich := site(""), site(`, machines: [{mac: "52:54:00:12:34:56", name: n1}]`)
	for _, c := range []struct {
		name  string
		room  room
		o     Options
		lines []string
		want  []string // parts, in order
		not   string
	}{
		{"what answers DHCP in the VLAN counts, not what does outside", room{links: [][]setup.Found{rack}, vlans: map[int][]setup.Offer{7: foreign.Offers}}, Options{},
			script("3", "7", enter(4)), []string{"DHCP in VLAN 7 of eth0", "ANOTHER DHCP SERVER", "[10.0.0.253/24]", "[no]"}, "network is eth0 "},
		{"a VLAN that cannot be made", room{links: [][]setup.Found{rack}}, Options{},
			script("3", "9", enter(4)), []string{"What answers DHCP there is not known: VLAN cannot be made", "[no]"}, "Nobody answers"},
		{"a link without carrier", room{links: [][]setup.Found{{dark}}}, Options{},
			script(enter(6)), []string{"It has no carrier", "Be the DHCP server", "[no]"}, "Looking which addresses"},
		{"ARP does not work", room{links: [][]setup.Found{rack}, arp: errors.New("operation not permitted")}, Options{},
			script("3", "0"), []string{"!! Whether an address is taken is not known: operation not permitted", "[10.77.0.2/24]"}, ""},
		{"a free network where another link is in ours", room{links: [][]setup.Found{{free, {Link: dark.Link, Offers: []setup.Offer{{Network: netip.MustParsePrefix("10.77.0.0/16")}}}}}}, Options{},
			script("1", "0"), []string{"[10.78.0.2/24]"}, ""},
		{"another network after another VLAN", room{links: [][]setup.Found{rack}, vlans: map[int][]setup.Offer{7: foreign.Offers, 8: nil}}, Options{},
			script("3", "7", "back", "8"), []string{"[10.0.0.253/24]", "VLAN 8", "[10.77.0.2/24]"}, ""},
		{"answers are proposed again after back, unless they do not fit", room{links: [][]setup.Found{rack}}, Options{},
			script("3", "0", "192.0.2.9/24", "192.0.2.1", "here", "192.0.2.77", "back", "back", "back", "back", "192.0.2.10/24", "", "", "", "back", "back", "back", "back", "198.51.100.4/24", "", ""),
			[]string{"[192.0.2.9/24]: 192.0.2.10/24", "[192.0.2.1]", "[192.0.2.77]", "[192.0.2.10/24]: 198.51.100.4/24", "Gateway, - for none [-]", "[198.51.100.5]"}, ""},
		{"the site in force is proposed", room{links: [][]setup.Found{rack}}, Options{Before: before},
			script(enter(12)), []string{"[3]", "[10.1.0.7/24]", "[10.1.0.9]", "[10.1.0.20]", "[10.1.0.30]", "[old]", "name: old"}, "says more"},
		{"a site with more in it is not lost by mistake", room{links: [][]setup.Found{rack}}, Options{Before: rich},
			script("", "yes", "quit"), []string{`site "old", says more than this form asks for:`, "machines.", "** type yes to go on without them, or quit", "Looking at the links", "nothing was changed"}, "kept,"},
		{"nothing is kept", room{links: [][]setup.Found{rack}}, Options{Volatile: "it is a CD"},
			script(enter(12), "yes"), []string{"NOTHING IS KEPT: it is a CD", "Serve machines from memory all the same (yes or no) [no]: yes", "memoryOnly: true"}, ""},
		{"back at the first question", room{links: [][]setup.Found{rack}}, Options{},
			script("back", "quit"), []string{"[3]: back", "[3]: quit", "nothing was changed"}, ""},
		{"the link cannot be kept", room{links: [][]setup.Found{rack}, keep: []error{errors.New("read-only file system")}}, Options{},
			script(enter(4), "web", "web"), []string{"** read-only file system", "https://10.77.0.2"}, "** here"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := play(t, &c.room, c.o, c.lines...)
			rest := got
			for _, part := range c.want {
				_, after, ok := strings.Cut(rest, part)
				if !ok {
					t.Fatalf("no %q after what came before it:\n%s", part, got)
				}
				rest = after
			}
			if c.not != "" && strings.Contains(got, c.not) {
				t.Errorf("%q is in:\n%s", c.not, got)
			}
		})
	}
}
