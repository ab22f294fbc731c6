package podnet

import (
	"net/netip"
	"reflect"
	"testing"
)

const wantCNI = `{
  "cniVersion": "1.0.0",
  "name": "rackseed",
  "plugins": [
    {
      "bridge": "cni0",
      "hairpinMode": true,
      "ipam": {
        "ranges": [
          [
            {
              "subnet": "10.244.3.0/24"
            }
          ]
        ],
        "routes": [
          {
            "dst": "0.0.0.0/0"
          }
        ],
        "type": "host-local"
      },
      "isGateway": true,
      "type": "bridge"
    },
    {
      "backend": "nftables",
      "capabilities": {
        "portMappings": true
      },
      "type": "portmap"
    }
  ]
}
`

func TestCNI(t *testing.T) {
	got, err := CNI(netip.MustParsePrefix("10.244.3.0/24"))
	if err != nil || string(got) != wantCNI {
		t.Errorf("error %v, got\n%s", err, got)
	}
	if _, err := CNI(netip.Prefix{}); err == nil {
		t.Error("a network without a subnet")
	}
}

func TestMasquerade(t *testing.T) {
	const want = `add table ip rackseed-pods
delete table ip rackseed-pods
table ip rackseed-pods {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade
	}
}
`
	if got := Masquerade(netip.MustParsePrefix("10.244.9.9/16")); got != want {
		t.Errorf("got\n%s", got)
	}
}

func node(name, address, pods string) Node {
	n := Node{Name: name}
	if address != "" {
		n.Address = netip.MustParseAddr(address)
	}
	if pods != "" {
		n.PodCIDR = netip.MustParsePrefix(pods)
	}
	return n
}

func route(pods, via string) Route {
	return Route{netip.MustParsePrefix(pods), netip.MustParseAddr(via)}
}

func TestRoutes(t *testing.T) {
	pods := netip.MustParsePrefix("10.244.0.0/16")
	for name, test := range map[string]struct {
		nodes []Node
		want  []Route
	}{
		"alone": {[]Node{node("me", "10.0.0.1", "10.244.0.0/24")}, nil},
		"in order": {[]Node{node("b", "10.0.0.3", "10.244.2.0/24"), node("me", "10.0.0.1", "10.244.0.0/24"), node("a", "10.0.0.2", "10.244.1.0/24")},
			[]Route{route("10.244.1.0/24", "10.0.0.2"), route("10.244.2.0/24", "10.0.0.3")}},
		"not complete yet": {[]Node{node("a", "", "10.244.1.0/24"), node("b", "10.0.0.3", "")}, nil},
		"elsewhere":        {[]Node{node("a", "10.0.0.2", "0.0.0.0/0"), node("b", "10.0.0.3", "10.0.0.0/24"), node("c", "10.0.0.4", "10.244.0.0/15")}, nil},
		"two claim the same": {[]Node{node("a", "10.0.0.2", "10.244.1.0/24"), node("b", "10.0.0.3", "10.244.1.0/24")},
			[]Route{route("10.244.1.0/24", "10.0.0.2")}},
	} {
		if got := Routes("me", pods, test.nodes); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %v, wanted %v", name, got, test.want)
		}
	}
}

func TestDiff(t *testing.T) {
	a, b := route("10.244.1.0/24", "10.0.0.2"), route("10.244.2.0/24", "10.0.0.3")
	moved := route("10.244.1.0/24", "10.0.0.9")
	for name, test := range map[string]struct{ have, want, set, remove []Route }{
		"first":   {nil, []Route{a, b}, []Route{a, b}, nil},
		"same":    {[]Route{a, b}, []Route{a, b}, nil, nil},
		"gone":    {[]Route{a, b}, []Route{b}, nil, []Route{a}},
		"moved":   {[]Route{a}, []Route{moved}, []Route{moved}, nil},
		"nothing": {[]Route{a}, nil, nil, []Route{a}},
	} {
		set, remove := Diff(test.have, test.want)
		if !reflect.DeepEqual(set, test.set) || !reflect.DeepEqual(remove, test.remove) {
			t.Errorf("%s: set %v, remove %v", name, set, remove)
		}
	}
}
