package dhcp

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

const (
	discover = dhcpv4.MessageTypeDiscover
	request  = dhcpv4.MessageTypeRequest
	decline  = dhcpv4.MessageTypeDecline
	release  = dhcpv4.MessageTypeRelease
	inform   = dhcpv4.MessageTypeInform
)

// tell puts a decision into one line: reply, address, commands.
func tell(d Decision) string {
	out := "silence"
	if d.Reply != nil {
		out = d.Reply.MessageType().String()
		if a := toAddr(d.Reply.YourIPAddr); a.IsValid() {
			out += " " + a.String()
		}
	}
	for _, c := range d.Commands {
		out += ", " + c.Kind()
		switch x := c.(type) {
		case state.LeaseBind:
			out += fmt.Sprintf(" %s %s", x.Lease.Address, x.Lease.MAC)
			if x.Event {
				out += " event"
			}
		case state.LeaseRelease:
			out += " " + x.Address.String()
		case state.LeaseDecline:
			out += " " + x.Address.String()
		case state.BootDecide:
			out += fmt.Sprintf(" %s %s", x.Machine, x.Decision.Kind)
		case state.MachineSee:
			out += fmt.Sprintf(" %q", x.Text)
		}
	}
	return out
}

func TestDecide(t *testing.T) {
	machineA := machine.Machine{ID: "m-1", MACs: []machine.MAC{macA}, Address: ip("10.77.0.12"), LastSeen: start.Add(-time.Hour)}
	seenA := machine.Machine{ID: "m-1", MACs: []machine.MAC{macA}, LastSeen: start.Add(-time.Second)}
	uuid := []byte{0, 0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
	twoNICs := machine.Machine{ID: "m-2", UUID: "00112233-4455-6677-8899-aabbccddeeff", MACs: []machine.MAC{"52:54:00:00:00:0c", macA}, Address: ip("10.77.0.13"), LastSeen: start}
	full := func() *world {
		w := newWorld()
		for i := range 3 {
			w.lease(machine.MAC(fmt.Sprintf("52:54:00:00:01:%02x", i)), fmt.Sprintf("10.77.0.%d", 100+i), time.Minute)
		}
		return w
	}
	tests := []struct {
		name   string
		world  *world
		packet packet4
		want   string
		reason string // a part of it
	}{
		{"discover: a wish in the pool", newWorld(), packet4{kind: discover, mac: macA, requested: "10.77.0.101"}, "OFFER 10.77.0.101", "offer"},
		{"discover: a wish outside is not granted", newWorld(), packet4{kind: discover, mac: macA, requested: "10.77.0.60"}, "OFFER 10.77.0.102", ""},
		{"discover: a wish of somebody's reservation", newWorld(), packet4{kind: discover, mac: macA, requested: "10.77.0.103"}, "OFFER 10.77.0.102", ""},
		{"discover: its reservation, outside the pool", newWorld(), packet4{kind: discover, mac: "52:54:00:00:00:09", requested: "10.77.0.101"}, "OFFER 10.77.0.50", ""},
		{"discover: its reservation, in the pool", newWorld(), packet4{kind: discover, mac: "52:54:00:00:00:08"}, "OFFER 10.77.0.103", ""},
		{"discover: its static address in the site file", newWorld(), packet4{kind: discover, mac: "52:54:00:00:00:07"}, "OFFER 10.77.0.11", ""},
		{"discover: its static address by approval", &world{machines: []machine.Machine{machineA}, now: start}, packet4{kind: discover, mac: macA}, "OFFER 10.77.0.12", ""},
		{"discover: a machine's second NIC", &world{machines: []machine.Machine{twoNICs}, now: start},
			packet4{kind: discover, mac: macA, options: []dhcpv4.Option{dhcpv4.OptGeneric(optionClientUUID, uuid)}}, "OFFER 10.77.0.13", ""},
		{"discover: a NIC that is not known to be the machine's: its address would not be bound to it", &world{machines: []machine.Machine{twoNICs}, now: start},
			packet4{kind: discover, mac: macB, options: []dhcpv4.Option{dhcpv4.OptGeneric(optionClientUUID, uuid)}}, "OFFER 10.77.0.100", ""},
		{"discover: reserved, and another machine's static address", &world{
			machines: []machine.Machine{{ID: "m-3", MACs: []machine.MAC{macB}, Address: ip("10.77.0.50")}}, now: start,
		}, packet4{kind: discover, mac: "52:54:00:00:00:09"}, "OFFER 10.77.0.102", ""},
		{"discover: static, but another NIC holds it", func() *world {
			w := newWorld().lease("52:54:00:00:00:0c", "10.77.0.13", time.Minute)
			w.machines = []machine.Machine{twoNICs}
			return w
		}(), packet4{kind: discover, mac: macA, options: []dhcpv4.Option{dhcpv4.OptGeneric(optionClientUUID, uuid)}}, "OFFER 10.77.0.102", ""},
		{"discover: the lease it has", newWorld().lease(macA, "10.77.0.102", time.Minute), packet4{kind: discover, mac: macA, requested: "10.77.0.101"}, "OFFER 10.77.0.102", ""},
		{"discover: the lease it had", newWorld().lease(macA, "10.77.0.102", -time.Minute), packet4{kind: discover, mac: macA}, "OFFER 10.77.0.102", ""},
		{"discover: least recently used", full().lease("52:54:00:00:01:01", "10.77.0.101", -time.Hour).lease("52:54:00:00:01:02", "10.77.0.102", -time.Minute),
			packet4{kind: discover, mac: macA}, "OFFER 10.77.0.101", ""},
		{"discover: what was offered a moment ago", &world{offers: map[netip.Addr]machine.MAC{ip("10.77.0.102"): macA}, now: start}, packet4{kind: discover, mac: macA}, "OFFER 10.77.0.102", ""},
		{"discover: what was offered to another", &world{offers: map[netip.Addr]machine.MAC{ip("10.77.0.101"): macB}, now: start}, packet4{kind: discover, mac: macA, requested: "10.77.0.101"}, "OFFER 10.77.0.102", ""},
		{"discover: full, for the last is reserved", full(), packet4{kind: discover, mac: macA}, "silence", "no address left"},
		{"discover: relayed from here", newWorld(), packet4{kind: discover, mac: macA, relay: "10.77.0.9"}, "OFFER 10.77.0.102", ""},
		{"discover: relayed from elsewhere", newWorld(), packet4{kind: discover, mac: macA, relay: "10.99.0.9"}, "silence", "10.99.0.9"},
		{"discover: group address", newWorld(), packet4{kind: discover, mac: "01:00:5e:00:00:01"}, "silence", "no client's"},
		{"discover: new machine", newWorld(), packet4{kind: discover, mac: macA, options: pxe(7)},
			`OFFER 10.77.0.102, machine.see/1 "DHCP discover by 52:54:00:00:00:0a (UEFI x64, PXE)"`, ""},
		{"discover: machine seen a second ago", &world{machines: []machine.Machine{seenA}, now: start}, packet4{kind: discover, mac: macA, options: pxe(7)}, "OFFER 10.77.0.102", ""},
		{"discover: machine seen a second ago, its UUID is new", &world{machines: []machine.Machine{seenA}, now: start},
			packet4{kind: discover, mac: macA, options: append(pxe(7), dhcpv4.OptGeneric(optionClientUUID, uuid))}, `OFFER 10.77.0.102, machine.see/1 ""`, ""},
		{"discover: no boot file for it", newWorld(), packet4{kind: discover, mac: macA, options: pxe(11)},
			`OFFER 10.77.0.102, machine.see/1 "DHCP discover by 52:54:00:00:00:0a (UEFI arm64, PXE)"`, "no boot file for UEFI arm64"},

		{"selecting", newWorld(), packet4{kind: request, mac: macA, requested: "10.77.0.100", server: "10.77.0.3"},
			"ACK 10.77.0.100, lease.bind/1 10.77.0.100 52:54:00:00:00:0a event", "acknowledge"},
		{"selecting again", newWorld().lease(macA, "10.77.0.100", time.Minute), packet4{kind: request, mac: macA, requested: "10.77.0.100", server: "10.77.0.3"},
			"ACK 10.77.0.100, lease.bind/1 10.77.0.100 52:54:00:00:00:0a", ""},
		{"selecting another server", newWorld(), packet4{kind: request, mac: macA, requested: "10.77.0.100", server: "10.77.0.9"}, "silence", "it chose the DHCP server 10.77.0.9"},
		{"selecting what is taken", newWorld().lease(macB, "10.77.0.100", time.Minute), packet4{kind: request, mac: macA, requested: "10.77.0.100", server: "10.77.0.3"}, "NAK, note/1", "refuse 10.77.0.100"},
		{"selecting the service address", newWorld(), packet4{kind: request, mac: macA, requested: "10.77.0.3", server: "10.77.0.3"}, "NAK, note/1", ""},
		{"selecting nothing", newWorld(), packet4{kind: request, mac: macA, server: "10.77.0.3"}, "NAK, note/1", ""},

		{"init-reboot", newWorld().lease(macA, "10.77.0.100", time.Minute), packet4{kind: request, mac: macA, requested: "10.77.0.100"},
			"ACK 10.77.0.100, lease.bind/1 10.77.0.100 52:54:00:00:00:0a", ""},
		{"init-reboot: reservation without a lease", newWorld(), packet4{kind: request, mac: "52:54:00:00:00:09", requested: "10.77.0.50"},
			"ACK 10.77.0.50, lease.bind/1 10.77.0.50 52:54:00:00:00:09 event", ""},
		{"init-reboot: another network", newWorld(), packet4{kind: request, mac: macA, requested: "192.168.1.5"}, "NAK, note/1", "another network"},
		{"init-reboot: it has another", newWorld().lease(macA, "10.77.0.100", time.Minute), packet4{kind: request, mac: macA, requested: "10.77.0.101"}, "NAK, note/1", "it has 10.77.0.100"},
		{"init-reboot: unknown", newWorld(), packet4{kind: request, mac: macA, requested: "10.77.0.100"}, "silence", "nothing is known"},

		{"renewing", newWorld().lease(macA, "10.77.0.100", time.Minute), packet4{kind: request, mac: macA, own: "10.77.0.100"},
			"ACK 10.77.0.100, lease.bind/1 10.77.0.100 52:54:00:00:00:0a", ""},
		{"renewing: approval gave a static one; it keeps what it has", func() *world {
			w := newWorld().lease(macA, "10.77.0.100", time.Minute)
			w.machines = []machine.Machine{machineA}
			return w
		}(), packet4{kind: request, mac: macA, own: "10.77.0.100"}, "ACK 10.77.0.100, lease.bind/1 10.77.0.100 52:54:00:00:00:0a", ""},
		{"renewing: run out, still free", newWorld().lease(macA, "10.77.0.100", -time.Minute), packet4{kind: request, mac: macA, own: "10.77.0.100"},
			"ACK 10.77.0.100, lease.bind/1 10.77.0.100 52:54:00:00:00:0a event", ""},
		{"renewing: taken", newWorld().lease(macB, "10.77.0.100", time.Minute), packet4{kind: request, mac: macA, own: "10.77.0.100"}, "NAK, note/1", "cannot keep"},
		{"renewing: no longer in the pool", newWorld().lease(macA, "10.77.0.110", time.Minute), packet4{kind: request, mac: macA, own: "10.77.0.110"}, "NAK, note/1", ""},
		{"renewing: another network", newWorld(), packet4{kind: request, mac: macA, own: "192.168.1.5"}, "NAK, note/1", ""},
		{"request for nothing", newWorld(), packet4{kind: request, mac: macA}, "silence", "no address"},

		{"decline", newWorld().lease(macA, "10.77.0.100", time.Minute), packet4{kind: decline, mac: macA, requested: "10.77.0.100", server: "10.77.0.3"}, "silence, lease.decline/1 10.77.0.100", "in use"},
		{"decline of what it does not hold", newWorld().lease(macB, "10.77.0.100", time.Minute), packet4{kind: decline, mac: macA, requested: "10.77.0.100", server: "10.77.0.3"}, "silence", "does not hold"},
		{"release", newWorld().lease(macA, "10.77.0.100", time.Minute), packet4{kind: release, mac: macA, own: "10.77.0.100", server: "10.77.0.3"}, "silence, lease.release/1 10.77.0.100", "back"},
		{"release of what it does not hold", newWorld().lease(macB, "10.77.0.100", time.Minute), packet4{kind: release, mac: macA, own: "10.77.0.100", server: "10.77.0.3"}, "silence", "does not hold"},
		{"release to another server", newWorld().lease(macA, "10.77.0.100", time.Minute), packet4{kind: release, mac: macA, own: "10.77.0.100", server: "10.77.0.9"}, "silence", "10.77.0.9"},
		{"inform", newWorld(), packet4{kind: inform, mac: macA, own: "10.77.0.60"}, "ACK", "parameters"},
		{"inform from elsewhere", newWorld(), packet4{kind: inform, mac: macA, own: "192.0.2.1"}, "silence", "not of this network"},
		{"inform of the broadcast address", newWorld(), packet4{kind: inform, mac: macA, own: "10.77.0.255"}, "silence", "not of this network"},
		{"an offer is no request of a client", newWorld(), packet4{kind: dhcpv4.MessageTypeOffer, mac: macA}, "silence", "none of a client's"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := Decide(test.packet.build(t), testLink(), test.world, start)
			if got := tell(d); got != test.want {
				t.Errorf("got  %s (%s)\nwant %s", got, d.Reason, test.want)
			}
			if !strings.Contains(d.Reason, test.reason) {
				t.Errorf("reason %q lacks %q", d.Reason, test.reason)
			}
		})
	}
}

func TestReplyToFirmware(t *testing.T) {
	id := []byte{1, 0x52, 0x54, 0, 0, 0, 0xa}
	req := packet4{kind: discover, mac: macA, relay: "10.77.0.9", options: append(pxe(7),
		dhcpv4.OptClientIdentifier(id),
		dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation, []byte{1, 2, 'e', '1'}),
		dhcpv4.OptGeneric(optionClientUUID, append([]byte{0}, bytes.Repeat([]byte{7}, 16)...)),
	)}.build(t)
	req.SetBroadcast()
	w := newWorld()
	w.machines = []machine.Machine{{ID: "m-1", Name: "n1", MACs: []machine.MAC{macA}, LastSeen: start}}
	r := Decide(req, testLink(), w, start).Reply
	r, err := dhcpv4.FromBytes(r.ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	if r.OpCode != dhcpv4.OpcodeBootReply || r.TransactionID != req.TransactionID || !r.IsBroadcast() || r.ClientHWAddr.String() != macA {
		t.Errorf("header: %s", r.Summary())
	}
	if r.GatewayIPAddr.String() != "10.77.0.9" || r.ServerIPAddr.String() != "10.77.0.3" || r.BootFileName != "shimx64.efi" {
		t.Errorf("giaddr %v, siaddr %v, file %q", r.GatewayIPAddr, r.ServerIPAddr, r.BootFileName)
	}
	for code, want := range map[uint8][]byte{
		1: {255, 255, 255, 0}, 3: {10, 77, 0, 1}, 6: {10, 77, 0, 1}, 12: []byte("n1"), 28: {10, 77, 0, 255},
		43: {6, 1, 8, 255}, 51: {0, 0, 0x0e, 0x10}, 53: {2}, 54: {10, 77, 0, 3},
		58: {0, 0, 0x07, 0x08}, 59: {0, 0, 0x0c, 0x4e}, 60: []byte("PXEClient"), 61: id,
		66: []byte("10.77.0.3"), 67: []byte("shimx64.efi"), 82: {1, 2, 'e', '1'},
		97: append([]byte{0}, bytes.Repeat([]byte{7}, 16)...),
	} {
		if got := r.Options.Get(dhcpv4.GenericOptionCode(code)); !bytes.Equal(got, want) {
			t.Errorf("option %d is % x, want % x", code, got, want)
		}
	}
}

func TestBootFile(t *testing.T) {
	rfc3004 := dhcpv4.OptRFC3004UserClass([]string{"iPXE"})
	http := func(arch byte) []dhcpv4.Option {
		return []dhcpv4.Option{
			dhcpv4.OptClassIdentifier("HTTPClient:Arch:00016:UNDI:003001"),
			dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, arch}),
		}
	}
	unsigned := machine.SiteNetboot{UEFI: machine.LoaderIPXE}
	tests := []struct {
		name        string
		policy      machine.SiteNetboot
		options     []dhcpv4.Option
		want, class string
	}{
		{"UEFI x64", machine.SiteNetboot{}, pxe(7), "shimx64.efi", "PXEClient"},
		{"UEFI x64 under its other number", machine.SiteNetboot{}, pxe(9), "shimx64.efi", "PXEClient"},
		{"UEFI x64, iPXE first", unsigned, pxe(7), "snponly.efi", "PXEClient"},
		{"BIOS", machine.SiteNetboot{}, pxe(0), "undionly.kpxe", "PXEClient"},
		{"iPXE by bare user class", machine.SiteNetboot{}, append(pxe(7), dhcpv4.OptUserClass("iPXE")), "http://10.77.0.3/boot.ipxe", "PXEClient"},
		{"iPXE by user class of RFC 3004", machine.SiteNetboot{}, append(pxe(7), rfc3004), "http://10.77.0.3/boot.ipxe", "PXEClient"},
		{"iPXE by its option", machine.SiteNetboot{}, []dhcpv4.Option{dhcpv4.OptGeneric(optionIPXE, []byte{0xb1, 1, 1})}, "http://10.77.0.3/boot.ipxe", "PXEClient"},
		{"UEFI arm64", machine.SiteNetboot{}, pxe(11), "", "PXEClient"},
		{"PXE without an architecture", machine.SiteNetboot{}, pxe(7)[:1], "", "PXEClient"},
		{"an operating system", machine.SiteNetboot{}, nil, "", ""},
		{"HTTP boot", machine.SiteNetboot{}, http(16), "http://10.77.0.3/uefi/shimx64.efi", "HTTPClient"},
		{"HTTP boot, iPXE first", unsigned, http(16), "http://10.77.0.3/uefi/snponly.efi", "HTTPClient"},
		{"HTTP boot, arm64", machine.SiteNetboot{}, http(19), "", ""},
		{"HTTP boot by BIOS", machine.SiteNetboot{}, http(0), "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			link := testLink()
			link.Netboot = test.policy.Filled()
			r := Decide(packet4{kind: discover, mac: macA, options: test.options}.build(t), link, newWorld(), start).Reply
			if r.BootFileName != test.want || r.BootFileNameOption() != test.want || r.ClassIdentifier() != test.class {
				t.Errorf("boot file %q and %q, class %q; want %q, %q", r.BootFileName, r.BootFileNameOption(), r.ClassIdentifier(), test.want, test.class)
			}
		})
	}
}

// A machine that boots its own disk is told nothing of netboot, where that is
// the policy for its firmware; the decision is committed before its address is
// acknowledged.
func TestSilencePolicy(t *testing.T) {
	uefi, bios := machine.SiteNetboot{LeaveUEFI: machine.LeaveSilence}, machine.SiteNetboot{LeaveBIOS: machine.LeaveSilence}
	seen := machine.Machine{ID: "m-1", MACs: []machine.MAC{macA}, LastSeen: start.Add(-time.Second)}
	with := func(status machine.IntentStatus) *world {
		w := newWorld()
		w.machines = []machine.Machine{seen}
		if status != "" {
			w.installs = map[machine.ID]*machine.Intent{"m-1": {ID: "i-1", Status: status}}
		}
		return w
	}
	open := func(w *world) *world { w.window = true; return w }
	const file, decided = "ACK 10.77.0.100, lease.bind/1 10.77.0.100 52:54:00:00:00:0a event", "ACK 10.77.0.100, boot.decide/1 m-1 local, lease.bind/1 10.77.0.100 52:54:00:00:00:0a event"
	for _, test := range []struct {
		name   string
		policy machine.SiteNetboot
		world  *world
		arch   byte
		want   string
		boots  string
	}{
		{"installed", uefi, with(machine.IntentDone), 7, decided, ""},
		{"installed, asked by HTTP boot's number", uefi, with(machine.IntentDone), 9, decided, ""},
		{"to be installed", uefi, with(machine.IntentOpen), 7, file, "shimx64.efi"},
		{"the policy is for the other firmware", bios, with(machine.IntentDone), 7, file, "shimx64.efi"},
		{"BIOS, installed", bios, with(machine.IntentDone), 0, decided, ""},
		{"BIOS, another policy", uefi, with(machine.IntentDone), 0, file, "undionly.kpxe"},
		{"the usual policy", machine.SiteNetboot{}, with(machine.IntentDone), 7, file, "shimx64.efi"},
		{"only seen, window closed", uefi, with(""), 7, decided, ""},
		{"only seen, window open", uefi, open(with("")), 7, file, "shimx64.efi"},
		{"never seen, window closed", uefi, newWorld(), 7, `ACK 10.77.0.100, machine.see/1 "DHCP request by 52:54:00:00:00:0a (UEFI x64, PXE)", lease.bind/1 10.77.0.100 52:54:00:00:00:0a event`, ""},
		{"never seen, window open", uefi, open(newWorld()), 7, `ACK 10.77.0.100, machine.see/1 "DHCP request by 52:54:00:00:00:0a (UEFI x64, PXE)", lease.bind/1 10.77.0.100 52:54:00:00:00:0a event`, "shimx64.efi"},
	} {
		t.Run(test.name, func(t *testing.T) {
			link := testLink()
			link.Netboot = test.policy.Filled()
			d := Decide(packet4{kind: request, mac: macA, requested: "10.77.0.100", server: "10.77.0.3", options: pxe(test.arch)}.build(t), link, test.world, start)
			if got := tell(d); got != test.want {
				t.Errorf("got  %s (%s)\nwant %s", got, d.Reason, test.want)
			}
			if d.Reply.BootFileName != test.boots || d.Reply.BootFileNameOption() != test.boots {
				t.Errorf("boot file %q, want %q", d.Reply.BootFileName, test.boots)
			}
			if quiet := d.Reply.ClassIdentifier() == "" && !d.Reply.Options.Has(dhcpv4.OptionVendorSpecificInformation) && d.Reply.ServerIPAddr.IsUnspecified(); quiet != (test.boots == "") {
				t.Errorf("PXE options: %s", d.Reply.Summary())
			}
		})
	}
}

// Who is served: machines and reservations; with others, everybody. And where
// another server answers, whoever is bound already.
func TestWhoIsServed(t *testing.T) {
	known := machine.Machine{ID: "m-1", MACs: []machine.MAC{macA}, UUID: "00112233-4455-6677-8899-aabbccddeeff", LastSeen: start}
	approved := known
	approved.NodeKey = make([]byte, 32)
	class := func(s string) []dhcpv4.Option { return []dhcpv4.Option{dhcpv4.OptClassIdentifier(s)} }
	of := func(m ...machine.Machine) *world { w := newWorld(); w.machines = m; return w }
	for _, test := range []struct {
		name   string
		world  *world
		client packet4
		// Whether it is served: without others and with; and whether, where
		// another server answers.
		machines, others, beside bool
	}{
		{"a laptop", newWorld(), packet4{mac: macA}, false, true, false},
		{"a laptop with a lease", newWorld().lease(macA, "10.77.0.100", time.Minute), packet4{mac: macA}, false, true, true},
		{"a laptop whose lease ran out", newWorld().lease(macA, "10.77.0.100", -time.Minute), packet4{mac: macA}, false, true, false},
		{"a phone", newWorld(), packet4{mac: macA, options: class("android-dhcp-15")}, false, true, false},
		{"firmware", newWorld(), packet4{mac: macA, options: pxe(7)}, true, true, false},
		{"firmware that boots by HTTP", newWorld(), packet4{mac: macA, options: class("HTTPClient:Arch:00016")}, true, true, false},
		{"iPXE", newWorld(), packet4{mac: macA, options: []dhcpv4.Option{dhcpv4.OptUserClass("iPXE")}}, true, true, false},
		{"the installer, on a port never seen", newWorld(), packet4{mac: macA, options: class("rackseed-installer")}, true, true, false},
		{"a machine's operating system", of(known), packet4{mac: macA}, true, true, false},
		{"an approved machine", of(approved), packet4{mac: macA}, true, true, true},
		{"a reservation, as of a BMC", newWorld(), packet4{mac: "52:54:00:00:00:09"}, true, true, false},
		{"a listed machine", newWorld(), packet4{mac: "52:54:00:00:00:07"}, true, true, false},
		{"a listed machine without an address", newWorld(), packet4{mac: "52:54:00:00:00:06"}, true, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			link := testLink()
			link.Listed = append(link.Listed, machine.ListedMachine{MAC: "52:54:00:00:00:06"})
			test.client.kind = discover
			served := func(others, closed bool) bool {
				link.Others, test.world.closed = others, closed
				d := Decide(test.client.build(t), link, test.world, start)
				if d.Reply == nil && len(d.Commands) > 0 {
					t.Errorf("silence, and %s", tell(d))
				}
				return d.Reply != nil
			}
			if m, o, b := served(false, false), served(true, false), served(true, true); m != test.machines || o != test.others || b != test.beside {
				t.Errorf("served %v, with others %v, beside another server %v; want %v, %v, %v", m, o, b, test.machines, test.others, test.beside)
			}
		})
	}
}

// Whoever is not served hears nothing at all: not even that its address is
// wrong, which is another server's to say.
func TestUnservedHearNothing(t *testing.T) {
	leased := func() *world { return newWorld().lease(macA, "10.77.0.100", time.Minute) }
	for _, test := range []struct {
		name   string
		packet packet4
		open   string // the answer where it is served
	}{
		{"discover", packet4{kind: discover}, "OFFER"},
		{"init-reboot from another network", packet4{kind: request, requested: "192.168.1.5"}, "NAK"},
		{"renewing in another network", packet4{kind: request, own: "192.168.1.5"}, "NAK"},
		{"inform", packet4{kind: inform, own: "10.77.0.60"}, "ACK"},
		{"selecting", packet4{kind: request, requested: "10.77.0.101", server: "10.77.0.3"}, "ACK"},
	} {
		test.packet.mac = macB
		link := testLink()
		if d := Decide(test.packet.build(t), link, leased(), start); d.Reply == nil || d.Reply.MessageType().String() != test.open {
			t.Errorf("%s: served with %s", test.name, tell(d))
		}
		w := leased()
		w.closed = true
		if d := Decide(test.packet.build(t), link, w, start); tell(d) != "silence" || !strings.Contains(d.Reason, "another DHCP server") {
			t.Errorf("%s, beside another server: %s (%s)", test.name, tell(d), d.Reason)
		}
		link.Others = false
		if d := Decide(test.packet.build(t), link, leased(), start); tell(d) != "silence" || !strings.Contains(d.Reason, "others: true") {
			t.Errorf("%s, without others: %s (%s)", test.name, tell(d), d.Reason)
		}
	}
	// What it has from before it may give back.
	link, w := testLink(), leased()
	link.Others, w.closed = false, true
	if got := tell(Decide(packet4{kind: release, mac: macA, own: "10.77.0.100"}.build(t), link, w, start)); got != "silence, lease.release/1 10.77.0.100" {
		t.Errorf("release: %s", got)
	}
	// And it tells of another server.
	if d := Decide(packet4{kind: request, mac: macB, requested: "10.77.0.101", server: "10.77.0.9"}.build(t), link, w, start); d.Other != ip("10.77.0.9") || d.Reply != nil {
		t.Errorf("it chose another server: %+v", d)
	}
	if d := Decide(packet4{kind: request, mac: macB, own: "10.77.0.101", server: "10.77.0.9"}.build(t), link, w, start); d.Other.IsValid() || d.Reply != nil {
		t.Errorf("it renews, and names another server all the same: %+v", d)
	}
}

// A probe of another Rackseed is told that new clients are served here, as far
// as they are, and gets no address.
func TestProbe(t *testing.T) {
	probe := func(cluster string) packet4 {
		return packet4{mac: macA, options: []dhcpv4.Option{dhcpv4.OptClientIdentifier([]byte("\x00rackseed-probe:" + cluster)), dhcpv4.OptMessage("rack2")}}
	}
	for _, test := range []struct {
		name    string
		kind    dhcpv4.MessageType
		cluster string
		closed  bool
		want    string
		asker   string
	}{
		{"asked", discover, "c-2", false, "OFFER", `site "rack2"`},
		{"by a replica of this cluster", discover, "c-1", false, "OFFER", ""},
		{"where another server answers", discover, "c-2", true, "silence", ""},
		{"it never gets an address", request, "c-2", false, "silence", ""},
	} {
		w := newWorld()
		w.closed = test.closed
		p := probe(test.cluster)
		p.kind, p.requested, p.server = test.kind, "10.77.0.100", "10.77.0.3"
		link := testLink()
		link.Others = false
		d := Decide(p.build(t), link, w, start)
		if got := tell(d); got != test.want || d.Asker != test.asker || d.Offer.IsValid() {
			t.Errorf("%s: %s, asker %q, offer %v", test.name, got, d.Asker, d.Offer)
		}
		if d.Reply != nil && (d.Reply.ClassIdentifier() != "rackseed-server:c-1" || d.Reply.Message() != "lab" || target(d.Reply).To != broadcastPort) {
			t.Errorf("%s: %s", test.name, d.Reply.Summary())
		}
	}
}

func TestClientUUID(t *testing.T) {
	raw := func(hex ...byte) []byte { return append([]byte{0}, hex...) }
	tests := []struct {
		name string
		in   []byte
		want string
	}{
		{"SMBIOS order", raw(0x44, 0x45, 0x4c, 0x4c, 0x42, 0x00, 0x10, 0x35, 0x80, 0x52, 0xb4, 0xc0, 0x4f, 0x4d, 0x31, 0x32), "4c4c4544-0042-3510-8052-b4c04f4d3132"},
		{"zeros", raw(make([]byte, 16)...), ""},
		{"ones", raw(bytes.Repeat([]byte{255}, 16)...), ""},
		{"template", raw(0x00, 0x02, 0x00, 0x03, 0x00, 0x04, 0x00, 0x05, 0x00, 0x06, 0x00, 0x07, 0x00, 0x08, 0x00, 0x09), ""},
		{"other type", append([]byte{1}, bytes.Repeat([]byte{3}, 16)...), ""},
		{"short", raw(1, 2, 3), ""},
		{"none", nil, ""},
	}
	for _, test := range tests {
		if got, _ := clientUUID(test.in); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestTarget(t *testing.T) {
	hw, _ := net.ParseMAC(macA)
	tests := []struct {
		name string
		edit func(r *dhcpv4.DHCPv4)
		want string
	}{
		{"new client", func(*dhcpv4.DHCPv4) {}, macA + " 10.77.0.100:68"},
		{"asks for broadcast", func(r *dhcpv4.DHCPv4) { r.SetBroadcast() }, "ff:ff:ff:ff:ff:ff 255.255.255.255:68"},
		{"has an address", func(r *dhcpv4.DHCPv4) { r.ClientIPAddr = net.IP{10, 77, 0, 9}; r.SetBroadcast() }, " 10.77.0.9:68"},
		{"relayed", func(r *dhcpv4.DHCPv4) { r.GatewayIPAddr = net.IP{10, 77, 0, 8}; r.ClientIPAddr = net.IP{10, 77, 0, 9} }, " 10.77.0.8:67"},
		{"NAK", func(r *dhcpv4.DHCPv4) { r.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeNak)) }, "ff:ff:ff:ff:ff:ff 255.255.255.255:68"},
	}
	for _, test := range tests {
		r := &dhcpv4.DHCPv4{ClientHWAddr: hw, YourIPAddr: net.IP{10, 77, 0, 100}, Options: dhcpv4.Options{}}
		r.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeAck))
		test.edit(r)
		got := target(r)
		if s := got.Frame.String() + " " + got.To.String(); s != test.want {
			t.Errorf("%s: got %q, want %q", test.name, s, test.want)
		}
	}
}
