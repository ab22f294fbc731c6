package endpoint

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

var (
	a11 = netip.MustParseAddrPort("10.77.0.11:6443")
	a12 = netip.MustParseAddrPort("10.77.0.12:6443")
	a13 = netip.MustParseAddrPort("10.77.0.13:6443")
	vip = netip.MustParseAddrPort("10.77.0.1:6443")
	now = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
)

const second = time.Second

// some writes a list: "11", asked 2 s ago; "11!2": it failed twice; "11?": not
// asked yet; "11+": it is in use; "11@30": asked 30 s ago; "11x": no longer there.
// 11 is the node's own where own is set, 1 the service address.
func some(t *testing.T, text string, withOwn bool) (list []server) {
	t.Helper()
	for word := range strings.FieldsSeq(text) {
		digits := word[:len(word)-len(strings.TrimLeft(word, "0123456789"))]
		s := server{address: netip.MustParseAddrPort("10.77.0." + digits + ":6443"), kind: member, health: health{known: true, checked: now.Add(-2 * second)}}
		switch {
		case digits == "1":
			s.kind = service
		case digits == "11" && withOwn:
			s.kind = own
		}
		for rest := word[len(digits):]; rest != ""; {
			n := 0
			switch rest[0] {
			case '?':
				s.health = health{}
			case '+':
				s.open = 1
			case 'x':
				s.kind = gone
			case '!':
				n, _ = fmt.Sscanf(rest[1:], "%d", &s.failed)
			case '@':
				var ago int
				n, _ = fmt.Sscanf(rest[1:], "%d", &ago)
				s.checked = now.Add(-time.Duration(ago) * second)
				rest = strings.TrimLeft(rest[1:], "0123456789")
				continue
			default:
				t.Fatalf("%q", word)
			}
			rest = rest[1+n:]
		}
		list = append(list, s)
	}
	return list
}

func words(addresses []netip.AddrPort) string {
	var list []string
	for _, a := range addresses {
		list = append(list, strings.TrimPrefix(a.Addr().String(), "10.77.0."))
	}
	return strings.Join(list, " ")
}

func TestServers(t *testing.T) {
	for _, test := range []struct {
		name         string
		own, service netip.AddrPort
		members      []netip.AddrPort
		want         string
	}{
		{"a worker that joins", netip.AddrPort{}, vip, nil, "1"},
		{"the first control plane", a11, vip, nil, "11 1"},
		{"a control plane", a11, vip, []netip.AddrPort{a11, a12, a13}, "11 12 13 1"},
		{"a worker", netip.AddrPort{}, vip, []netip.AddrPort{a11, a12}, "11 12 1"},
		{"a node that knows no service address", netip.AddrPort{}, netip.AddrPort{}, []netip.AddrPort{a11}, "11"},
	} {
		var got []netip.AddrPort
		for _, s := range servers(test.own, test.service, test.members) {
			got = append(got, s.address)
		}
		if words(got) != test.want {
			t.Errorf("%s: %s, want %s", test.name, words(got), test.want)
		}
	}
}

func TestLearn(t *testing.T) {
	var many []netip.AddrPort
	for i := range maxMembers + 3 {
		many = append(many, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 77, 1, byte(i)}), 6443))
	}
	for _, test := range []struct {
		name  string
		named []netip.AddrPort
		want  []netip.AddrPort
		news  bool
	}{
		{"none: nothing is forgotten", nil, nil, false},
		{"only what is no address", []netip.AddrPort{{}, netip.MustParseAddrPort("0.0.0.0:6443")}, nil, false},
		{"in order, each once", []netip.AddrPort{a13, a11, a13, {}}, []netip.AddrPort{a11, a13}, true},
		{"too many", many, many[:maxMembers], true},
	} {
		got, news := learn(test.named)
		if !reflect.DeepEqual(got, test.want) || news != test.news {
			t.Errorf("%s: %v, %v", test.name, got, news)
		}
	}
}

func TestOrder(t *testing.T) {
	for _, test := range []struct {
		name, list string
		own        bool
		want       string
	}{
		{"the node's own first, the service address last", "1 12 11", true, "11 12 1"},
		{"at the start nobody was asked", "1? 12? 11?", true, "11 12 1"},
		{"the node's own has failed", "11!1 12 1", true, "12 1 11"},
		{"the service address is ready, others are not", "11!1 12!3 1", true, "1 11 12"},
		{"ready before unknown before failed", "12!1 11? 1", false, "1 11 12"},
		{"all failed: each is tried", "1!9 12!2 11!2", true, "11 12 1"},
		{"one that the cluster no longer has is not tried", "12x+ 11", false, "11"},
		{"none", "", false, ""},
	} {
		var got []netip.AddrPort
		for _, s := range order("node-4", some(t, test.list, test.own)) {
			got = append(got, s.address)
		}
		if words(got) != test.want {
			t.Errorf("%s: %s, want %s", test.name, words(got), test.want)
		}
	}
}

// TestWorkersSpread: alike servers share the workers, and when one goes, only its
// workers move.
func TestWorkersSpread(t *testing.T) {
	first := map[netip.AddrPort]int{}
	for i := range 300 {
		node := fmt.Sprintf("node-%d", i)
		all := order(node, some(t, "11 12 13", false))
		first[all[0].address]++
		left := order(node, some(t, "11 13", false))
		if all[0].address != a12 && left[0].address != all[0].address {
			t.Errorf("%s moved from %s to %s, though its server did not go", node, all[0].address, left[0].address)
		}
	}
	for a, n := range first {
		if n < 50 {
			t.Errorf("%s has %d of 300 workers", a, n)
		}
	}
	if len(first) != 3 {
		t.Errorf("%v", first)
	}
}

func TestCut(t *testing.T) {
	for _, test := range []struct {
		name, list, want string
	}{
		{"all is well", "11+ 12 1", ""},
		{"one failure may be a hiccup", "11+!1 12 1", ""},
		{"it is dead, another one is ready", "11+!2 12 1", "11"},
		{"it is dead, nothing uses it", "11!2 12+ 1", ""},
		{"none is ready: it may only be slow", "11+!9 12!2 1!2", ""},
		{"others were not asked yet", "11+!2 12? 1?", ""},
		{"the service address is ready", "11+!2 12!2 1", "11"},
		{"the service address is gone", "11 1+!2", "1"},
		{"the cluster no longer has it", "12x+ 11", "12"},
		{"the cluster no longer has it, and no other is ready", "12x+ 11!1", ""},
	} {
		if got := words(cut(some(t, test.list, false))); got != test.want {
			t.Errorf("%s: cut %q, want %q", test.name, got, test.want)
		}
	}
}

func TestDue(t *testing.T) {
	for _, test := range []struct {
		name, list, want string
		next             time.Duration
	}{
		{"at the start all", "11? 12? 1?", "11 12 1", 3 * second},
		{"just asked", "11+ 12 1", "", 3 * second},
		{"the one in use", "12+@3 13@3 1@3", "12", 3 * second},
		{"the node's own", "11@3 12@29 1@3", "11", 3 * second},
		{"others seldom", "12@30 13@29 1@30", "12 1", 3 * second},
		{"one in use fails: all, soon", "12+!1 13 1", "12 13 1", 300 * time.Millisecond},
		{"one in use is dead, no other is ready", "12+!2 13!1 1!1", "12 13 1", 3 * second},
		{"a dead one that is not used", "12!2 13+ 1", "", 3 * second},
		{"one that the cluster no longer has is not asked", "12x+@90 13", "", 3 * second},
	} {
		list := some(t, test.list, true)
		if got := words(due(list, now, 3*second)); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
		if got := again(list, 3*second); got != test.next {
			t.Errorf("%s: again after %s, want %s", test.name, got, test.next)
		}
	}
}
