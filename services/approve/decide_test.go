package approve

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
)

// view is a View over plain values.
type view struct {
	site      *machine.Site
	machines  []machine.Machine
	intents   map[machine.ID]*machine.Intent
	bootstrap *machine.Intent
	leases    map[machine.MAC]machine.Lease
	images    map[string]machine.Image
	cut       *state.CutOff
	half      machine.DiskHint
	used      map[string]machine.ID
}

func (v view) Site() (machine.Site, bool) {
	if v.site == nil {
		return machine.Site{}, false
	}
	return *v.site, true
}
func (v view) Machines() []machine.Machine                    { return v.machines }
func (v view) InstallIntent(id machine.ID) *machine.Intent    { return v.intents[id] }
func (v view) Bootstrap() *machine.Intent                     { return v.bootstrap }
func (v view) LeaseByMAC(m machine.MAC) (machine.Lease, bool) { l, ok := v.leases[m]; return l, ok }
func (v view) Lease(a netip.Addr) (machine.Lease, bool) {
	for _, l := range v.leases {
		if l.Address == a {
			return l, true
		}
	}
	return machine.Lease{}, false
}
func (v view) CutOff(machine.ID) (state.CutOff, bool) {
	if v.cut == nil {
		return state.CutOff{}, false
	}
	return *v.cut, true
}
func (v view) HalfWritten(machine.ID) (machine.DiskHint, bool) {
	return v.half, v.half != (machine.DiskHint{})
}
func (v view) ListUsed(l machine.ListedMachine) (machine.ID, bool) {
	id, ok := v.used[l.Key()]
	return id, ok
}
func (v view) SealSecret(name string, secret []byte) (keyring.Sealed, error) {
	return statetest.Seal(name, secret), nil
}
func (v view) Image(ref string) (machine.Image, bool) { i, ok := v.images[ref]; return i, ok }

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

const (
	mac1 = machine.MAC("52:54:00:00:00:01")
	mac2 = machine.MAC("52:54:00:00:00:02")
	mac3 = machine.MAC("52:54:00:00:00:03")

	board = "4c4c4544-0042-3510-8052-b4c04f4d3132"
)

// drive is a disk that can be installed on.
func drive(path, serial, contents string) machine.Disk {
	return machine.Disk{Path: path, Serial: serial, Transport: "sata", Bytes: 480_103_981_056, SectorSize: 512, Contents: contents}
}

// windows puts a second disk, with something on it, into m.
func windows(m *machine.Machine) {
	m.Inventory.Disks = append(m.Inventory.Disks, drive("/dev/sdb", "B", ntfs))
}

const ntfs = "MBR, 1 partition: NTFS (Windows)"

// lab is a site with one served link, an image, and machine m-1 waiting.
func lab() (view, machine.Machine) {
	m := machine.Machine{
		ID: "m-1", UUID: board, MACs: []machine.MAC{mac1},
		Phase: machine.PhaseWaiting, Session: &machine.Session{ID: "s-1"},
		Inventory: &machine.Inventory{Manufacturer: "Dell Inc.", Product: "PowerEdge R650", CPU: machine.CPU{Threads: 64}, MemoryBytes: 256 << 30,
			Disks: []machine.Disk{drive("/dev/sda", "A", machine.Empty)}},
	}
	return view{
		site: &machine.Site{
			ServiceAddress: ip("10.77.0.1"),
			Links: []machine.SiteLink{{
				Address: netip.MustParsePrefix("10.77.0.2/24"), Gateway: ip("10.77.0.10"),
				DHCP: &machine.SiteDHCP{From: ip("10.77.0.100"), To: ip("10.77.0.199")},
			}},
			Profiles: []machine.Profile{
				{Name: "gpu", Role: machine.RoleWorker},
				{Name: "control-plane", Role: machine.RoleControlPlane},
				{Name: "worker", Role: machine.RoleWorker},
			},
		},
		machines: []machine.Machine{m},
		intents:  map[machine.ID]*machine.Intent{},
		leases:   map[machine.MAC]machine.Lease{},
		images:   map[string]machine.Image{"node": {Ref: "node", Digest: "sha256:aa"}},
	}, m
}

var fresh = Fresh{"i-1", "b-1", make([]byte, 32)}

func TestDecide(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*view, *machine.Machine, *Wish)
		// want is "name profile address disk-serial"
		want string
	}{
		"nothing said": {func(v *view, m *machine.Machine, w *Wish) {}, "node-1 control-plane 10.77.0.11 A"},
		"second": {func(v *view, m *machine.Machine, w *Wish) {
			v.bootstrap = &machine.Intent{Status: machine.IntentOpen}
			v.machines = append(v.machines, machine.Machine{ID: "m-2", Name: "node-1", Address: ip("10.77.0.11")})
		}, "node-2 worker 10.77.0.12 A"},
		"lowest free number": {func(v *view, m *machine.Machine, w *Wish) {
			v.machines = append(v.machines, machine.Machine{ID: "m-2", Name: "node-2"})
		}, "node-1 control-plane 10.77.0.11 A"},
		"wished": {func(v *view, m *machine.Machine, w *Wish) {
			*w = Wish{Name: "web", Profile: "gpu", Address: ip("10.77.0.200"), Disk: &machine.DiskHint{Serial: "X"}}
			m.Inventory.Disks = append(m.Inventory.Disks, drive("/dev/sdx", "X", machine.Empty))
		}, "web gpu 10.77.0.200 X"},
		"listed by MAC": {func(v *view, m *machine.Machine, w *Wish) {
			v.site.Machines = []machine.ListedMachine{{MAC: mac1, Name: "db", Profile: "worker", Address: ip("10.77.0.60"), Disk: machine.DiskHint{Serial: "y"}}}
			m.Inventory.Disks = append(m.Inventory.Disks, drive("/dev/sdy", "Y", machine.Empty))
		}, "db worker 10.77.0.60 Y"},
		"listed by UUID before MAC": {func(v *view, m *machine.Machine, w *Wish) {
			v.site.Machines = []machine.ListedMachine{{MAC: mac1, Name: "other"}, {UUID: strings.ToUpper(m.UUID), Name: "db"}}
		}, "db control-plane 10.77.0.11 A"},
		"the wish beats the list": {func(v *view, m *machine.Machine, w *Wish) {
			v.site.Machines = []machine.ListedMachine{{MAC: mac1, Name: "db", Disk: machine.DiskHint{Serial: "y"}}}
			*w = Wish{Name: "web", Disk: &machine.DiskHint{}}
		}, "web control-plane 10.77.0.11 A"},
		"as before": {func(v *view, m *machine.Machine, w *Wish) {
			m.Name, m.Address = "old", ip("10.77.0.44")
		}, "old control-plane 10.77.0.44 A"},
		"before is gone": {func(v *view, m *machine.Machine, w *Wish) {
			m.Name, m.Address = "old", ip("10.77.0.150")
			v.machines = append(v.machines, machine.Machine{ID: "m-2", Name: "old"})
		}, "node-1 control-plane 10.77.0.11 A"},
		"as what it was": {func(v *view, m *machine.Machine, w *Wish) {
			m.Profile = "gpu"
		}, "node-1 gpu 10.77.0.11 A"},
		"what it was is gone": {func(v *view, m *machine.Machine, w *Wish) {
			m.Profile = "arm"
			v.bootstrap = &machine.Intent{Machine: "m-2", Status: machine.IntentDone}
		}, "node-1 worker 10.77.0.11 A"},
		"it starts the cluster": {func(v *view, m *machine.Machine, w *Wish) {
			v.bootstrap = &machine.Intent{Machine: "m-1", Status: machine.IntentOpen}
		}, "node-1 control-plane 10.77.0.11 A"},
		"it started the cluster": {func(v *view, m *machine.Machine, w *Wish) {
			v.bootstrap = &machine.Intent{Machine: "m-1", Status: machine.IntentDone}
		}, "node-1 worker 10.77.0.11 A"},
		"own reservation": {func(v *view, m *machine.Machine, w *Wish) {
			v.site.Links[0].DHCP.Reservations = []machine.Reservation{{MAC: mac2, Address: ip("10.77.0.11")}, {MAC: mac1, Address: ip("10.77.0.70")}}
		}, "node-1 control-plane 10.77.0.70 A"},
		"all that is taken": {func(v *view, m *machine.Machine, w *Wish) {
			d := v.site.Links[0].DHCP
			d.Router, d.DNS = ip("10.77.0.11"), []netip.Addr{ip("10.77.0.12")}
			d.Reservations = []machine.Reservation{{MAC: mac2, Address: ip("10.77.0.13")}}
			v.site.Machines = []machine.ListedMachine{{MAC: mac2, Name: "node-1", Address: ip("10.77.0.14")}}
			v.machines = append(v.machines, machine.Machine{ID: "m-2", Address: ip("10.77.0.15")})
			v.site.ServiceAddress = ip("10.77.0.16")
			v.site.Links[0].Address = netip.MustParsePrefix("10.77.0.17/24")
		}, "node-2 control-plane 10.77.0.18 A"},
		"another's lease is outside of the pool": {func(v *view, m *machine.Machine, w *Wish) {
			v.leases[mac2] = machine.Lease{MAC: mac2, Address: ip("10.77.0.11")}
			v.leases[mac1] = machine.Lease{MAC: mac1, Address: ip("10.77.0.12")}
		}, "node-1 control-plane 10.77.0.12 A"},
		"link of the lease": {func(v *view, m *machine.Machine, w *Wish) {
			v.site.Links = append(v.site.Links, machine.SiteLink{Address: netip.MustParsePrefix("10.88.0.2/16"), DHCP: &machine.SiteDHCP{From: ip("10.88.1.0"), To: ip("10.88.2.0")}})
			v.leases[mac1] = machine.Lease{MAC: mac1, Address: ip("10.88.1.7")}
		}, "node-1 control-plane 10.88.0.10 A"},
		"no profiles": {func(v *view, m *machine.Machine, w *Wish) { v.site.Profiles = nil }, "node-1 control-plane 10.77.0.11 A"},
		"after a revoked one": {func(v *view, m *machine.Machine, w *Wish) {
			v.intents["m-1"] = &machine.Intent{Status: machine.IntentRevoked}
		}, "node-1 control-plane 10.77.0.11 A"},
	} {
		t.Run(name, func(t *testing.T) {
			v, m := lab()
			var w Wish
			c.change(&v, &m, &w)
			v.machines[0] = m
			got, err := Decide(v, m, w, fresh)
			if err != nil {
				t.Fatal(err)
			}
			if s := strings.Join([]string{got.Name, got.Profile.Name, got.Address.String(), got.Disk.Serial}, " "); s != c.want {
				t.Errorf("%q, want %q", s, c.want)
			}
			if got.Machine != "m-1" || got.Session != "s-1" || got.Intent != "i-1" || got.Bootstrap != "b-1" || got.Image != "sha256:aa" || len(got.NodeKey) != 32 || len(got.NodeSeed.Value) != 12+32+16 {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestDecideRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*view, *machine.Machine, *Wish)
		want   string
	}{
		"no site":      {func(v *view, m *machine.Machine, w *Wish) { v.site = nil }, "no valid site file"},
		"no session":   {func(v *view, m *machine.Machine, w *Wish) { m.Session = nil }, "netboot it"},
		"no inventory": {func(v *view, m *machine.Machine, w *Wish) { m.Inventory = nil }, "netboot it"},
		"left": {func(v *view, m *machine.Machine, w *Wish) {
			m.Phase, m.Session.Left = machine.PhaseSeen, time.Date(2026, 11, 26, 9, 30, 0, 0, time.UTC)
		}, "went back to its own disk at 2026-11-26T09:30:00Z: ask to have it looked at again"},
		"rescue shell": {func(v *view, m *machine.Machine, w *Wish) { m.Phase = machine.PhaseRescue }, "rescue shell: restart it"},
		"installed": {func(v *view, m *machine.Machine, w *Wish) {
			v.intents["m-1"] = &machine.Intent{ID: "i-0", Status: machine.IntentDone}
		}, "it is installed (intent i-0)"},
		"no image": {func(v *view, m *machine.Machine, w *Wish) { v.images = nil }, "no node image"},
		"approved": {func(v *view, m *machine.Machine, w *Wish) {
			v.intents["m-1"] = &machine.Intent{ID: "i-0", Status: machine.IntentFailed}
		}, "i-0 is failed"},
		"unknown profile": {func(v *view, m *machine.Machine, w *Wish) { w.Profile = "x" }, `profile "x" is not in the site file, which has gpu, control-plane, worker`},
		"no such role":    {func(v *view, m *machine.Machine, w *Wish) { v.site.Profiles = v.site.Profiles[:1] }, "no profile of role control-plane"},
		"starts the cluster": {func(v *view, m *machine.Machine, w *Wish) {
			v.bootstrap = &machine.Intent{Machine: "m-1", Status: machine.IntentClaimed}
			w.Profile = "worker"
		}, `it is the one that starts the cluster, which a worker cannot (profile "worker": it was asked for)`},
		"starts the cluster, and a selector says otherwise": {func(v *view, m *machine.Machine, w *Wish) {
			v.bootstrap = &machine.Intent{ID: "b-0", Machine: "m-1", Status: machine.IntentOpen}
			v.site.Profiles[0].Selector.Product = "PowerEdge*"
		}, `(profile "gpu": its selector matches (product PowerEdge*)): choose a profile of role control-plane, or revoke bootstrap intent b-0`},
		"bad name":  {func(v *view, m *machine.Machine, w *Wish) { w.Name = "Web_1" }, `"Web_1": lower-case`},
		"long name": {func(v *view, m *machine.Machine, w *Wish) { w.Name = strings.Repeat("a", 64) }, "63 at most"},
		"another's name": {func(v *view, m *machine.Machine, w *Wish) {
			w.Name = "a"
			v.machines = append(v.machines, machine.Machine{ID: "m-2", Name: "a"})
		}, "machine m-2's"},
		"another's address": {func(v *view, m *machine.Machine, w *Wish) {
			w.Address = ip("10.77.0.20")
			v.machines = append(v.machines, machine.Machine{ID: "m-2", Address: ip("10.77.0.20")})
		}, "machine m-2's"},
		"pool":      {func(v *view, m *machine.Machine, w *Wish) { w.Address = ip("10.77.0.100") }, "in the DHCP pool"},
		"service":   {func(v *view, m *machine.Machine, w *Wish) { w.Address = ip("10.77.0.1") }, "the service address"},
		"gateway":   {func(v *view, m *machine.Machine, w *Wish) { w.Address = ip("10.77.0.10") }, "a gateway's"},
		"network":   {func(v *view, m *machine.Machine, w *Wish) { w.Address = ip("10.77.0.0") }, "network 10.77.0.0/24 itself"},
		"broadcast": {func(v *view, m *machine.Machine, w *Wish) { w.Address = ip("10.77.0.255") }, "broadcast"},
		"elsewhere": {func(v *view, m *machine.Machine, w *Wish) { w.Address = ip("192.0.2.1") }, "in no network"},
		"full": {func(v *view, m *machine.Machine, w *Wish) {
			v.site.Links[0].DHCP = &machine.SiteDHCP{From: ip("10.77.0.3"), To: ip("10.77.0.254")}
		}, "no free address"},
		"not served": {func(v *view, m *machine.Machine, w *Wish) { v.site.Links[0].DHCP = nil }, "serves no link"},
		"which link": {func(v *view, m *machine.Machine, w *Wish) {
			v.site.Links = append(v.site.Links, machine.SiteLink{Address: netip.MustParsePrefix("10.88.0.2/16"), DHCP: &machine.SiteDHCP{}})
		}, "several links"},
	} {
		t.Run(name, func(t *testing.T) {
			v, m := lab()
			var w Wish
			c.change(&v, &m, &w)
			v.machines[0] = m
			_, err := Decide(v, m, w, fresh)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "machine m-1") {
				t.Errorf("%v, want it to name the machine and say %q", err, c.want)
			}
		})
	}
}
