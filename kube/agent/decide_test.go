package agent

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/kube/podnet"
	"github.com/rackseed/rackseed/services/wire"
	corev1 "k8s.io/api/core/v1"
)

func TestNext(t *testing.T) {
	ordered := func(k wire.NodeOrderKind) *wire.NodeOrder { return &wire.NodeOrder{Kind: k, Reason: "because"} }
	for name, test := range map[string]struct {
		facts  facts
		order  *wire.NodeOrder
		want   step
		reason string
	}{
		"fresh":                 {facts{Config: true}, nil, stepAsk, ""},
		"shall wait":            {facts{Config: true}, ordered(wire.NodeWait), stepAsk, "because"},
		"shall begin":           {facts{Config: true}, ordered(wire.NodeInit), stepInit, ""},
		"was interrupted":       {facts{Config: true, Begun: true}, ordered(wire.NodeInit), stepResume, ""},
		"interrupted, no order": {facts{Config: true, Begun: true}, nil, stepAsk, ""},
		"interrupted, wait":     {facts{Config: true, Begun: true}, ordered(wire.NodeWait), stepAsk, "because"},
		"a worker shall begin":  {facts{}, ordered(wire.NodeInit), stepAsk, "control-plane profile"},
		"shall join":            {facts{JoinConfig: true}, ordered(wire.NodeJoin), stepJoin, ""},
		"interrupted, joins":    {facts{JoinConfig: true, Begun: true}, ordered(wire.NodeJoin), stepJoin, ""},
		"cannot join":           {facts{Config: true}, ordered(wire.NodeJoin), stepAsk, "install it again"},
		"done, may join":        {facts{JoinConfig: true, Done: true, Reported: true}, ordered(wire.NodeJoin), stepWatch, ""},
		"unknown order":         {facts{Config: true}, ordered("dance"), stepAsk, `"dance"`},
		"done, untold":          {facts{Config: true, Begun: true, Done: true}, nil, stepTell, ""},
		"done, untold, order":   {facts{Config: true, Begun: true, Done: true}, ordered(wire.NodeInit), stepTell, ""},
		"done":                  {facts{Config: true, Begun: true, Done: true, Reported: true}, nil, stepWatch, ""},
		"done, and an order":    {facts{Config: true, Begun: true, Done: true, Reported: true}, ordered(wire.NodeInit), stepWatch, ""},
	} {
		got, reason := next(test.facts, test.order)
		if got != test.want || (test.reason == "") != (reason == "") || !strings.Contains(reason, test.reason) {
			t.Errorf("%s: %s (%s), wanted %s (%s)", name, got, reason, test.want, test.reason)
		}
	}
}

func TestInitArgs(t *testing.T) {
	for s, skipped := range map[step]string{stepInit: "show-join-command", stepResume: "preflight,show-join-command"} {
		want := []string{"init", "--config", "/c.yaml", "--skip-token-print", "--skip-phases", skipped}
		if got := initArgs(s, "/c.yaml"); !slices.Equal(got, want) {
			t.Errorf("%s: %q", s, got)
		}
	}
}

func TestJoinArgs(t *testing.T) {
	if got, want := joinArgs("/j.yaml", nil), []string{"join", "--config", "/j.yaml"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got, want := joinArgs("/j.yaml", []string{"a", "b"}), []string{"join", "--config", "/j.yaml", "--skip-phases", "a,b"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func kubeNode(boot string, conditions ...corev1.NodeCondition) *corev1.Node {
	n := &corev1.Node{}
	n.Name = "node-1"
	n.Status.NodeInfo.BootID = boot
	n.Status.Conditions = conditions
	return n
}

func TestReadiness(t *testing.T) {
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue}
	unknown := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionUnknown, Reason: "NodeStatusUnknown", Message: "Kubelet stopped posting node status."}
	pressure := corev1.NodeCondition{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionTrue}
	for name, test := range map[string]struct {
		node               *corev1.Node
		last               wire.NodeEvent
		known, ready, news bool
		event              wire.NodeEvent
	}{
		"ready":                    {kubeNode("this", pressure, ready), wire.NodeJoined, true, true, true, wire.NodeReady},
		"still ready":              {kubeNode("this", ready), wire.NodeReady, true, true, false, ""},
		"ready before this boot":   {kubeNode("before", ready), wire.NodeBooted, false, false, false, ""},
		"starting":                 {kubeNode("this", unknown), wire.NodeJoined, true, false, false, ""},
		"no more":                  {kubeNode("this", unknown), wire.NodeReady, true, false, true, wire.NodeUnready},
		"ready again":              {kubeNode("this", ready), wire.NodeUnready, true, true, true, wire.NodeReady},
		"deleted":                  {nil, wire.NodeReady, true, false, true, wire.NodeUnready},
		"not registered yet":       {nil, wire.NodeBooted, true, false, false, ""},
		"without Ready conditions": {kubeNode("this", pressure), wire.NodeReady, false, false, false, ""},
	} {
		r := readinessOf(test.node, "this")
		if r.Known != test.known || r.Ready != test.ready || r.Known && r.Text == "" {
			t.Errorf("%s: %+v", name, r)
		}
		if event, news := transition(test.last, r); event != test.event || news != test.news {
			t.Errorf("%s: reported %q %v, wanted %q", name, event, news, test.event)
		}
	}
}

func TestPodnetNode(t *testing.T) {
	n := kubeNode("this")
	n.Spec.PodCIDR = "10.244.3.0/24"
	n.Status.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeHostName, Address: "node-1"},
		{Type: corev1.NodeInternalIP, Address: "fd00::1"},
		{Type: corev1.NodeInternalIP, Address: "10.77.0.11"},
	}
	want := podnet.Node{Name: "node-1", Address: netip.MustParseAddr("10.77.0.11"), PodCIDR: netip.MustParsePrefix("10.244.3.0/24")}
	if got := podnetNode(n); got != want {
		t.Errorf("%+v", got)
	}
	n.Spec.PodCIDR, n.Status.Addresses = "fd00::/64", nil
	if got := podnetNode(n); got != (podnet.Node{Name: "node-1"}) {
		t.Errorf("%+v", got)
	}
}

func TestNetworkUp(t *testing.T) {
	for state, want := range map[string]bool{
		"OPER_STATE=routable\nADDRESS_STATE=routable\nIPV4_ADDRESS_STATE=routable\n": true,
		"OPER_STATE=degraded\nADDRESS_STATE=degraded\n":                              false,
		"IPV4_ADDRESS_STATE=routable\n":                                              false,
		"":                                                                           false,
	} {
		if networkUp(state) != want {
			t.Errorf("%q: wanted %v", state, want)
		}
	}
}

func TestDigest(t *testing.T) {
	lines := []string{
		"I1124 12:00:00.000000  1 a.go:1] fine",
		"E1124 12:00:01.000000  1 a.go:2] pod is sad",
		`time="2026-11-24T12:00:02Z" level=error msg="no network"`,
		`time="2026-11-24T12:00:03Z" level=info msg="no error"`,
		"E1124 12:00:04.000000  1 a.go:2] pod is sad",
		"Error: this is not klog's",
		"F1124 12:00:05.000000  1 a.go:3] the end",
	}
	if got, want := digest(lines, 20), []string{lines[2], lines[4], lines[6]}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := digest(lines, 1); !slices.Equal(got, lines[6:]) {
		t.Errorf("limited: %q", got)
	}
	if got := digest(nil, 20); len(got) != 0 {
		t.Errorf("of nothing: %q", got)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain\r\n":          "plain",
		"\x1b[31mred\tx\x07": "[31mred\tx",
		"a\xffb":             "a\uFFFDb",
		"join --token abcdef.0123456789abcdef --discovery": "join --token abcdef.**************** --discovery",
		"10.244.0.0/16 and v1.37.2":                        "10.244.0.0/16 and v1.37.2",
	} {
		if got := clean(in); got != want {
			t.Errorf("%q: %q, wanted %q", in, got, want)
		}
	}
	for _, long := range []string{strings.Repeat("x", 3*maxLine), strings.Repeat("ü", maxLine)} {
		if got := clean(long); len(got) > maxLine || !strings.HasSuffix(got, "(cut)") || strings.ContainsRune(got, '\uFFFD') {
			t.Errorf("a long line became %d bytes ending in %q", len(got), got[len(got)-12:])
		}
	}
}

func TestLineWriter(t *testing.T) {
	var got []string
	w := &lineWriter{line: func(l string) { got = append(got, l) }}
	long := strings.Repeat("x", maxLine+5)
	for _, part := range []string{"a", "b\nc\n\nd", "e\n", long, "\nend"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("wrote %d of %d: %v", n, len(part), err)
		}
	}
	w.flush()
	w.flush()
	if want := []string{"ab", "c", "", "de", long[:maxLine], "xxxxx", "end"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestAcknowledged(t *testing.T) {
	for _, test := range []struct {
		first, next uint64
		n, want     int
	}{{1, 4, 3, 3}, {1, 2, 3, 1}, {5, 5, 3, 0}, {5, 2, 3, 0}, {5, 99, 3, 3}} {
		if got := acknowledged(test.first, test.next, test.n); got != test.want {
			t.Errorf("%+v: %d", test, got)
		}
	}
}
