package approve

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
	"github.com/rackseed/rackseed/services/wire"
)

// lived is a real state with the loop over it.
type lived struct {
	*statetest.State
	t   *testing.T
	ctx context.Context
}

func live(t *testing.T) lived {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	l := lived{statetest.Open(t), t, ctx}
	done := make(chan error, 1)
	loop := &Loop{Store: l.Store, Logger: slog.New(slog.DiscardHandler)}
	go func() { done <- loop.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the loop ended with %v", err)
		}
	})
	return l
}

// until waits for a state in which it holds.
func (l lived) until(what string, holds func(state.View) bool) {
	l.t.Helper()
	for {
		v := l.View()
		changed := v.Changed()
		if holds(v) {
			return
		}
		select {
		case <-changed:
		case <-l.ctx.Done():
			l.t.Fatalf("never: %s", what)
		}
	}
}

// session opens an installer session on machine id; n is its number. contents
// are what is on its one disk.
func (l lived) session(id machine.ID, mac machine.MAC, n byte, contents string) machine.Session {
	l.t.Helper()
	key := sha256.Sum256([]byte{n, byte(len(mac)), mac[len(mac)-1]})
	s := machine.Session{ID: "s-" + string(mac[len(mac)-1]) + string('0'+rune(n)), SignKey: key[:], SealKey: key[:], Opened: time.Unix(0, 0)}
	l.Must(state.SessionOpen{NewID: id, Session: s, Inventory: machine.Inventory{
		Firmware: "uefi", BootMAC: mac, NICs: []machine.NIC{{Name: "eth0", MAC: mac}}, Disks: []machine.Disk{drive("/dev/sda", "A", contents)}}})
	return s
}

func TestLoop(t *testing.T) {
	l := live(t)
	site := machine.Site{
		Version: 1, ServiceAddress: ip("10.77.0.1"), Discovery: machine.SiteDiscovery{Always: true},
		Links: []machine.SiteLink{{Interface: "eth0", Address: netip.MustParsePrefix("10.77.0.2/24"),
			DHCP: &machine.SiteDHCP{From: ip("10.77.0.100"), To: ip("10.77.0.199")}}},
		Machines: []machine.ListedMachine{{MAC: mac1, Approve: true}},
	}
	l.Must(state.SiteApply{Site: site})
	l.session("m-00000001", mac1, 1, machine.Empty)
	l.session("m-00000002", mac2, 1, machine.Empty) // not listed

	// Not without an image, and that is told, once.
	told := func(v state.View) (n int) {
		for _, e := range v.Events(0, "m-00000001", 0) {
			if e.Kind == "approve.impossible" && strings.Contains(e.Text, "no node image is published yet") {
				n++
			}
		}
		return n
	}
	l.until("the reason is told", func(v state.View) bool { return told(v) == 1 })
	l.Must(state.Note{Machine: "m-00000002", What: "x", Severity: machine.Info, Text: "x"})
	l.Must(state.MachineSee{ID: "m-00000009", MAC: mac1, Via: "dhcp.discover"})

	l.Must(state.ImagePublish{Images: []machine.Image{{Ref: "node", Digest: "sha256:" + strings.Repeat("a", 64)}}})
	open := func(session string) func(state.View) bool {
		return func(v state.View) bool {
			i := v.InstallIntent("m-00000001")
			return i != nil && i.Session == session && i.Status == machine.IntentOpen
		}
	}
	l.until("it is approved", open("s-11"))
	v := l.View()
	if told(v) != 1 {
		t.Errorf("the reason was told %d times", told(v))
	}
	m, _ := v.Machine("m-00000001")
	if m.Name != "node-1" || m.Address != ip("10.77.0.10") || v.Bootstrap() == nil || v.Bootstrap().Machine != m.ID {
		t.Errorf("%+v, bootstrap %+v", m, v.Bootstrap())
	}

	// A restart in the middle: approved again, as what it was.
	l.session("m-00000003", mac1, 2, machine.Empty)
	l.until("it is approved again", open("s-12"))
	if again, _ := l.View().Machine("m-00000001"); again.Name != m.Name || again.Address != m.Address || again.Profile != m.Profile {
		t.Errorf("%+v, before %+v", again, m)
	}

	// Installed, then forgotten: a new session waits, since the entry's word
	// counted. Machine two, listed now with something on its disk, waits too.
	i := l.View().InstallIntent("m-00000001")
	l.Must(state.IntentClaim{Intent: i.ID, Epoch: i.Epoch, Session: "s-12", Disk: drive("/dev/sda", "A", machine.Empty)})
	l.Must(state.InstallReport{Machine: "m-00000001", Session: "s-12", Report: wire.Report{
		Number: 1, Intent: i.ID, Epoch: i.Epoch, Step: wire.StepReboot, Status: wire.StepDone}})
	l.Must(state.BootstrapClaim{Machine: "m-00000001"})
	for n, event := range []wire.NodeEvent{wire.NodeBooted, wire.NodeJoined} {
		l.Must(state.NodeReport{Machine: "m-00000001", Report: wire.NodeReport{BootID: "b", Number: uint64(n + 1), Event: event}})
	}
	l.Must(state.MachineForget{Machine: "m-00000001"})
	l.session("m-00000004", mac1, 3, machine.Empty)
	l.session("m-00000005", mac3, 1, "NTFS")
	site.Machines = append(site.Machines, machine.ListedMachine{MAC: mac2, Approve: true}, machine.ListedMachine{MAC: mac3, Approve: true})
	l.Must(state.SiteApply{Site: site})
	l.until("machine two is approved", func(v state.View) bool { return v.InstallIntent("m-00000002").Live() })
	says := func(id machine.ID, text string) func(state.View) bool {
		return func(v state.View) bool {
			for _, e := range v.Events(0, id, 0) {
				if e.Kind == "approve.impossible" && strings.Contains(e.Text, text) {
					return true
				}
			}
			return false
		}
	}
	l.until("it is told why the forgotten one waits", says("m-00000004", "its entry was used by machine m-00000001"))
	l.until("it is told why the full one waits", says("m-00000005", "disk /dev/sda is not empty (NTFS): a person must approve it"))
	v = l.View()
	for _, id := range []machine.ID{"m-00000004", "m-00000005"} {
		if last := v.InstallIntent(id); last != nil {
			t.Errorf("machine %s was approved by the list: %+v", id, last)
		}
	}
	if two, _ := v.Machine("m-00000002"); two.Name != "node-1" || two.Profile != "worker" {
		t.Errorf("%+v", two)
	}
}
