package state

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

// with changes a copy of a command.
func with[C any](c C, change func(*C)) C {
	change(&c)
	return c
}

func TestRefusals(t *testing.T) {
	worker := func(x *MachineApprove) { x.Profile = machine.Profile{Name: "worker", Role: machine.RoleWorker} }
	for _, test := range []struct {
		name    string
		prepare func(*world)
		command Command
		want    string
	}{
		{"a second cluster", func(w *world) { w.must(ClusterCreate{ID: "c-1"}) }, ClusterCreate{ID: "c-2"}, "cluster c-1 exists already"},
		{"an image without a digest", nil, ImagePublish{Images: []machine.Image{{Ref: "node", Digest: "latest"}}}, "64 hex digits"},
		{"an unpublishable digest path", nil, ImagePublish{Images: []machine.Image{{Ref: "node", Digest: "sha256:../../etc/passwd"}}}, "64 hex digits"},

		{"setup without a cluster", nil, UserPut{Name: "ann", PasswordHash: []byte("h"), SetupHash: bytes32("setup")}, "no cluster yet"},
		{"a wrong setup code", func(w *world) { w.must(ClusterCreate{ID: "c-1", SetupHash: bytes32("setup")}) },
			UserPut{Name: "ann", PasswordHash: []byte("h"), SetupHash: bytes32("guess")}, "setup code is wrong"},
		{"the setup code twice", func(w *world) {
			w.must(ClusterCreate{ID: "c-1", SetupHash: bytes32("setup")})
			w.must(UserPut{Name: "ann", PasswordHash: []byte("h"), SetupHash: bytes32("setup")})
		}, UserPut{Name: "eve", PasswordHash: []byte("h"), SetupHash: bytes32("setup")}, "was used already"},
		{"login of nobody", nil, LoginOpen{TokenHash: bytes32("t"), User: "ann", Expires: start.Add(time.Hour)}, "no user"},
		{"an expired login", func(w *world) { w.must(UserPut{Name: "ann", PasswordHash: []byte("h")}) },
			LoginOpen{TokenHash: bytes32("t"), User: "ann", Expires: start}, "expired already"},

		{"a lease that another client holds", func(w *world) { w.must(lease(100, mac(1), start, time.Hour)) },
			lease(100, mac(2), start, time.Hour), "leased to 52:54:00:00:00:01 until"},
		{"a declined address", func(w *world) {
			w.must(lease(100, mac(1), start, time.Hour))
			w.must(LeaseDecline{Address: address(100), MAC: mac(1), Until: start.Add(time.Hour)})
		}, lease(100, mac(1), start, time.Hour), "declined until"},
		{"a lease that has run out", nil, lease(100, mac(1), start, 0), "run out already"},
		{"a lease of the service address", func(w *world) { w.must(SiteApply{Site: machine.Site{ServiceAddress: address(1)}}) },
			lease(1, mac(1), start, time.Hour), "the service address"},
		{"a lease of the appliance's address", func(w *world) {
			w.must(SiteApply{Site: machine.Site{Links: []machine.SiteLink{{Address: netip.PrefixFrom(address(2), 24)}}}})
		}, lease(2, mac(1), start, time.Hour), "the appliance's own"},
		{"a lease of a node's static address", func(w *world) { w.approved(1) }, lease(1001, mac(2), start, time.Hour), "static address of node-1"},
		{"release by another client", func(w *world) { w.must(lease(100, mac(1), start, time.Hour)) },
			LeaseRelease{Address: address(100), MAC: mac(2)}, "not leased to"},
		{"decline of another's address", func(w *world) { w.must(lease(100, mac(1), start, time.Hour)) },
			LeaseDecline{Address: address(100), MAC: mac(2), Until: start.Add(time.Hour)}, "not leased to"},

		{"boot of a machine never seen", nil, BootDecide{Machine: "m-1", Decision: machine.BootDecision{Kind: machine.BootLocal}}, "no machine"},
		{"a boot decision that is out of date", func(w *world) { w.approved(1) },
			BootDecide{Machine: machineID(1), Decision: machine.BootDecision{Kind: machine.BootDiscovery}}, "boots install and not discovery"},
		{"a packet without an address", nil, MachineSee{ID: "m-1", Via: "x"}, "hardware address"},

		{"a session with a short key", nil, with(session("s-1", inventory(1), "m-1"), func(x *SessionOpen) { x.Session.SignKey = x.Session.SignKey[:31] }), "31 and 32 bytes"},
		{"a session of a machine without identity", nil, SessionOpen{NewID: "m-1", Session: session("s-1", inventory(1), "").Session}, "neither a UUID nor"},
		{"another machine's key", func(w *world) { w.waiting(1) },
			with(session("s-1", inventory(2), "m-2"), func(x *SessionOpen) {}), "key is machine m-00000001's"},
		{"a replayed older session", func(w *world) {
			w.waiting(1)
			w.must(session("s-2", inventory(1), "m-unused"))
		}, session("s-1", inventory(1), "m-unused"), "ended by a newer one"},

		{"approval in a stale session", func(w *world) {
			w.waiting(1)
			w.must(session("s-2", inventory(1), "m-unused"))
		}, approval(1), "not its newest"},
		{"approval before a session", func(w *world) { w.must(MachineSee{ID: machineID(1), MAC: mac(1)}) }, approval(1), "not its newest"},
		{"approval twice", func(w *world) { w.approved(1) }, with(approval(1), func(x *MachineApprove) { x.Intent = "i-9" }), "is approved already"},
		{"approval of what is installed", func(w *world) {
			w.claimed(1)
			w.must(installReport(1, 1, wire.StepReboot, wire.StepDone, "", 0, 0))
		}, with(approval(1), func(x *MachineApprove) { x.Intent = "i-9" }), "forget it first"},
		{"a name that is taken", func(w *world) { w.approved(1); w.waiting(2) }, with(approval(2), func(x *MachineApprove) { x.Name = "node-1" }), "name node-1 is machine"},
		{"a name that is none", func(w *world) { w.waiting(1) }, with(approval(1), func(x *MachineApprove) { x.Name = "Node_1" }), "no host name"},
		{"an address that is taken", func(w *world) { w.approved(1); w.waiting(2) },
			with(approval(2), func(x *MachineApprove) { x.Address = address(1001) }), "address 10.77.3.233 is machine"},
		{"an address leased to another", func(w *world) { w.waiting(1); w.must(lease(1001, mac(7), start, time.Hour)) }, approval(1), "is leased to"},
		{"an intent that exists", func(w *world) { w.approved(1); w.waiting(2) }, with(approval(2), func(x *MachineApprove) { x.Intent = "i-1" }), "intent i-1 exists already"},
		{"a node key that is another's", func(w *world) { w.approved(1); w.waiting(2) }, with(approval(2), func(x *MachineApprove) { x.NodeKey = bytes32("key 1") }), "node key is"},
		{"a short key", func(w *world) { w.waiting(1) }, with(approval(1), func(x *MachineApprove) { x.NodeKey = nil }), "key has 0 bytes"},
		{"a role that is none", func(w *world) { w.waiting(1) }, with(approval(1), func(x *MachineApprove) { x.Profile.Role = "boss" }), `role "boss"`},
		{"a first control plane without a bootstrap intent", func(w *world) { w.waiting(1) }, with(approval(1), func(x *MachineApprove) { x.Bootstrap = "" }), "bootstrap intent ID"},

		{"claim by another session", func(w *world) { w.approved(1) }, with(claim(1), func(x *IntentClaim) { x.Session = "s-9" }), "bound to session s-1"},
		{"claim after a restart", func(w *world) {
			w.approved(1)
			w.must(session("s-2", inventory(1), "m-unused"))
		}, claim(1), "newer session revokes"},
		{"claim of an older epoch", func(w *world) {
			w.claimed(1)
			w.must(installReport(1, 1, wire.StepImage, wire.StepFailed, "", 0, 0))
			w.must(IntentRetry{Intent: "i-1"})
		}, claim(1), "is at epoch 2 and not 1"},
		{"claim for another disk", func(w *world) { w.claimed(1) }, with(claim(1), func(x *IntentClaim) { x.Disk.Path = "/dev/vdb" }), "claimed for another disk"},
		{"claim of a disk that the hint excludes", func(w *world) {
			w.waiting(1)
			w.must(with(approval(1), func(x *MachineApprove) { x.Disk = machine.DiskHint{Serial: "D2"} }))
		}, claim(1), `(serial D1, 20 GiB) is not the one that was approved (serial number D2)`},
		{"claim of a failed intent", func(w *world) {
			w.claimed(1)
			w.must(installReport(1, 1, wire.StepImage, wire.StepFailed, "", 0, 0))
		}, claim(1), "is failed"},
		{"claim of a bootstrap intent", func(w *world) { w.approved(1) }, with(claim(1), func(x *IntentClaim) { x.Intent = "b-1" }), "no install intent"},
		{"retry of what did not fail", func(w *world) { w.approved(1) }, IntentRetry{Intent: "i-1"}, "only a failed one"},
		{"revocation of what ended", func(w *world) {
			w.approved(1)
			w.must(IntentRevoke{Intent: "i-1"})
		}, IntentRevoke{Intent: "i-1"}, "is revoked already"},
		{"revocation of nothing", nil, IntentRevoke{Intent: "i-1"}, "no intent"},
		{"revocation of the bootstrap under way", func(w *world) { w.approved(1); w.must(BootstrapClaim{Machine: machineID(1)}) },
			IntentRevoke{Intent: "b-1"}, "there might be two clusters"},
		{"revocation of the bootstrap that was done", func(w *world) {
			w.approved(1)
			w.must(BootstrapClaim{Machine: machineID(1)})
			w.must(nodeReport(1, "boot", 1, wire.NodeJoined))
		}, IntentRevoke{Intent: "b-1"}, "is done already"},

		{"a report before the claim", func(w *world) { w.approved(1) }, installReport(1, 1, wire.StepImage, wire.StepStarted, "", 0, 0), "is open: a report of step image"},
		{"a report of an older session", func(w *world) {
			w.claimed(1)
			w.now = w.now.Add(takeoverSilence)
			w.must(session("s-2", inventory(1), "m-unused"))
		}, installReport(1, 1, wire.StepImage, wire.StepStarted, "", 0, 0), "not its newest"},
		{"a report without a number", func(w *world) { w.claimed(1) }, installReport(1, 0, wire.StepImage, wire.StepStarted, "", 0, 0), "numbered from 1"},
		{"a report of an older epoch", func(w *world) { w.claimed(1) }, with(installReport(1, 1, wire.StepImage, wire.StepStarted, "", 0, 0), func(x *InstallReport) { x.Report.Epoch = 0 }), "at epoch 1 and not 0"},
		{"a step that is none", func(w *world) { w.claimed(1) }, installReport(1, 1, "dance", wire.StepStarted, "", 0, 0), `no step "dance"`},
		{"a report after the end", func(w *world) {
			w.claimed(1)
			w.must(installReport(1, 1, wire.StepReboot, wire.StepDone, "", 0, 0))
		}, installReport(1, 2, wire.StepImage, wire.StepStarted, "", 0, 0), "is done: a report"},
		{"a node that was never approved", func(w *world) { w.waiting(1) }, nodeReport(1, "boot", 1, wire.NodeBooted), "never approved"},

		{"bootstrap before any approval", nil, BootstrapClaim{Machine: machineID(1)}, "no control plane was approved"},
		{"bootstrap for another machine", func(w *world) { w.approved(1); w.approved(2) }, BootstrapClaim{Machine: machineID(2)}, "only machine m-00000001"},
		{"bootstrap by a worker", func(w *world) { w.waiting(1); w.must(with(approval(1), worker)) }, BootstrapClaim{Machine: machineID(1)}, "no control plane was approved"},
		{"bootstrap after it was done", func(w *world) {
			w.approved(1)
			w.must(BootstrapClaim{Machine: machineID(1)})
			w.must(nodeReport(1, "boot", 1, wire.NodeJoined))
		}, BootstrapClaim{Machine: machineID(1)}, "started already"},

		{"to forget with a live intent", func(w *world) { w.waiting(1); w.must(with(approval(1), worker)) }, MachineForget{Machine: machineID(1)}, "install intent i-1 is open"},
		{"to forget nobody", nil, MachineForget{Machine: "m-1"}, "no machine"},
		{"output with a gap", func(w *world) { w.waiting(1) },
			OutputStore{Chunk: machine.Chunk{Machine: machineID(1), Stream: "s-1", First: 2, Last: 3, Digest: digestOf("x"), Size: 1}}, "line 1 is expected next"},
		{"output of nobody", nil, OutputStore{Chunk: machine.Chunk{Machine: "m-1", Stream: "s-1", First: 1, Last: 3, Digest: digestOf("x")}}, "no such machine"},
		{"a note of no severity", nil, Note{What: "x", Severity: "loud"}, `severity "loud"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			if test.prepare != nil {
				test.prepare(w)
			}
			if text := w.refused(test.command); !strings.Contains(text, test.want) {
				t.Errorf("refused with %q, which does not say %q", text, test.want)
			}
		})
	}
}

// TestRepeated has what may arrive twice, because an answer was lost, arrive
// twice.
func TestRepeated(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(*world)
		command Command
	}{
		{"claim", func(w *world) { w.claimed(1) }, claim(1)},
		{"session", func(w *world) { w.waiting(1) }, session("s-1", inventory(1), "m-other")},
		{"report", func(w *world) {
			w.claimed(1)
			w.must(installReport(1, 1, wire.StepImage, wire.StepStarted, "", 0, 0))
		}, installReport(1, 1, wire.StepImage, wire.StepFailed, "other", 0, 0)},
		{"last report", func(w *world) {
			w.claimed(1)
			w.must(installReport(1, 1, wire.StepReboot, wire.StepDone, "", 0, 0))
		}, installReport(1, 1, wire.StepReboot, wire.StepDone, "", 0, 0)},
		{"node report", func(w *world) { w.approved(1); w.must(nodeReport(1, "boot", 3, wire.NodeBooted)) }, nodeReport(1, "boot", 2, wire.NodeFailed)},
		{"bootstrap claim", func(w *world) { w.approved(1); w.must(BootstrapClaim{Machine: machineID(1)}) }, BootstrapClaim{Machine: machineID(1)}},
		{"output", func(w *world) {
			w.waiting(1)
			w.must(OutputStore{Chunk: machine.Chunk{Machine: machineID(1), Stream: "s", First: 1, Last: 5, Digest: digestOf("x"), Size: 1}})
		}, OutputStore{Chunk: machine.Chunk{Machine: machineID(1), Stream: "s", First: 2, Last: 5, Digest: digestOf("x"), Size: 1}}},
		{"published image", func(w *world) { w.must(ImagePublish{Images: []machine.Image{{Ref: "node", Digest: digestOf("n")}}}) },
			ImagePublish{Images: []machine.Image{{Ref: "node", Digest: digestOf("n")}}}},
		{"ended login", nil, LoginEnd{TokenHash: bytes32("t")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			if test.prepare != nil {
				test.prepare(w)
			}
			before := w.hash()
			r := w.must(test.command)
			if w.hash() != before || len(r.Events) != 0 {
				t.Errorf("the second time it changed the state; events %v", r.Events)
			}
		})
	}
}
