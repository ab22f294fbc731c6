package machine

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Site is the whole site described in one file, site.yaml. Its JSON schema is
// generated from this definition. Durations are Go's ("1h30m").
type Site struct {
	// Version of the format; 1.
	Version int    `json:"version" doc:"Version of the site file's format; 1." minimum:"1" maximum:"1"`
	Name    string `json:"name" doc:"The site's name, shown in the console."`
	// ServiceAddress is the one virtual address of the boot service: DHCP
	// server identifier, every URL, and the Kubernetes API endpoint.
	ServiceAddress netip.Addr `json:"serviceAddress" doc:"The virtual address of the boot service and of the Kubernetes API."`
	// Emulated relaxes timeouts and probes for machines that are emulated in
	// software. Never set it on real machines.
	Emulated bool `json:"emulated,omitempty" doc:"Relax timeouts for machines emulated in software. Never for real ones."`
	// MemoryOnly serves machines although nothing can be kept. Without it a
	// replica that would forget them serves none: to one that begins anew,
	// machines that are installed are strangers.
	MemoryOnly bool `json:"memoryOnly,omitempty" doc:"Serve machines from memory where data cannot be kept, as from a CD. For tests: switched off, the boot service forgets all machines and the cluster's keys."`

	Discovery SiteDiscovery   `json:"discovery,omitzero" doc:"When machines that nobody listed are netbooted to look at them."`
	Netboot   SiteNetboot     `json:"netboot,omitzero" doc:"What firmware loads, and how a machine leaves netboot for its own disk."`
	Links     []SiteLink      `json:"links" doc:"The appliance's network links. One that is not named here is never served."`
	SSHKeys   []string        `json:"sshKeys,omitempty" doc:"Public keys that may log in to nodes as root."`
	Operators []SiteOperator  `json:"operators,omitempty" doc:"Who may use the API with a token, besides the setup code."`
	Profiles  []Profile       `json:"profiles,omitempty" doc:"What machines become. Without any: control-plane and worker."`
	Machines  []ListedMachine `json:"machines,omitempty" doc:"Machines known beforehand."`
	Cluster   SiteCluster     `json:"cluster,omitzero" doc:"The Kubernetes cluster."`
	Handoff   HandoffWish     `json:"handoff,omitempty" doc:"auto: once every machine that is listed here is Ready, the boot service moves onto nodes by itself; the appliance's own is not waited for. Without it an operator starts that." enum:"auto"`
}

// HandoffWish is the site file's word on the handoff.
type HandoffWish string

// HandoffAuto has it start by itself.
const HandoffAuto HandoffWish = "auto"

// SiteDiscovery is the site file's word on the discovery window.
type SiteDiscovery struct {
	Always bool `json:"always,omitempty" doc:"Keep the discovery window open for ever: any machine that netboots here is looked at. Without it operators open the window for a time. Only for networks where no production server netboots."`
	// Wait is how long a machine that was looked at waits for approval before
	// it goes back to its own disk; 0: 30 minutes.
	Wait Duration `json:"wait,omitempty" doc:"How long a machine that was looked at waits for approval until it goes back to its own disk; 30m without it."`
}

// DiscoveryWait is SiteDiscovery.Wait where the site file says nothing.
const DiscoveryWait = 30 * time.Minute

// WaitTime is how long an unapproved machine waits before it goes back to its
// disk.
func (d SiteDiscovery) WaitTime() time.Duration {
	if d.Wait == 0 {
		return DiscoveryWait
	}
	return time.Duration(d.Wait)
}

// UEFILoader is the first program of a UEFI machine that netboots.
type UEFILoader string

const (
	LoaderShim UEFILoader = "shim" // Debian's signed shim and GRUB: works with and without Secure Boot
	LoaderIPXE UEFILoader = "ipxe" // unsigned, faster, Secure Boot off
)

// LeaveBy is how a machine that netbooted goes on to its own disk.
type LeaveBy string

const (
	LeaveExit      LeaveBy = "exit"      // the boot program ends with a failure, the firmware tries its next boot option
	LeaveSanboot   LeaveBy = "sanboot"   // BIOS: iPXE boots the first disk (0x80) by itself
	LeaveChainload LeaveBy = "chainload" // UEFI: the loader starts the disk's boot loader by itself
	LeaveSilence   LeaveBy = "silence"   // the DHCP reply names no boot file: the firmware has nothing to load
)

// SiteNetboot is a policy by firmware: firmware differs in what it survives.
type SiteNetboot struct {
	UEFI      UEFILoader `json:"uefi,omitempty" doc:"What UEFI machines load first: shim (signed, works with Secure Boot on and off; the default) or ipxe (faster, Secure Boot off)." enum:"shim,ipxe"`
	LeaveUEFI LeaveBy    `json:"leaveUEFI,omitempty" doc:"How UEFI machines go on to their own disk: exit (the default), chainload or silence." enum:"exit,chainload,silence"`
	LeaveBIOS LeaveBy    `json:"leaveBIOS,omitempty" doc:"How BIOS machines go on to their own disk: exit (the default), sanboot or silence." enum:"exit,sanboot,silence"`
}

// Filled is the policy with its defaults.
func (n SiteNetboot) Filled() SiteNetboot {
	if n.UEFI == "" {
		n.UEFI = LoaderShim
	}
	if n.LeaveUEFI == "" {
		n.LeaveUEFI = LeaveExit
	}
	if n.LeaveBIOS == "" {
		n.LeaveBIOS = LeaveExit
	}
	return n
}

// SiteLink is one network link of the appliance.
type SiteLink struct {
	// One of MAC and Interface chooses the link.
	MAC       MAC    `json:"mac,omitempty" doc:"Chooses the link by hardware address."`
	Interface string `json:"interface,omitempty" doc:"Chooses the link by interface name."`
	// VLAN is the IEEE 802.1Q VLAN ID of a tagged network on the chosen link;
	// 0: untagged.
	VLAN int `json:"vlan,omitempty" doc:"VLAN ID of a tagged network on this link, 1 to 4094; absent: untagged. Firmware netboots untagged: the machines' switch ports carry this VLAN as their native one." minimum:"0" maximum:"4094"`
	// Address is the appliance's own address there, with its prefix length.
	Address netip.Prefix `json:"address" doc:"The appliance's own address on this link, as 192.0.2.2/24."`
	Gateway netip.Addr   `json:"gateway,omitzero" doc:"Default gateway of the appliance, on at most one link."`
	// DHCP makes the boot service the DHCP server of this link. Absent: the
	// link is not served.
	DHCP *SiteDHCP `json:"dhcp,omitempty" doc:"Be the DHCP server of this link. Absent: the link is not served."`
}

// SiteDHCP is what the DHCP server hands out on one link.
type SiteDHCP struct {
	From         netip.Addr    `json:"from" doc:"First address of the pool."`
	To           netip.Addr    `json:"to" doc:"Last address of the pool."`
	Router       netip.Addr    `json:"router,omitzero" doc:"Default gateway for clients (option 3)."`
	DNS          []netip.Addr  `json:"dns,omitempty" doc:"Name servers for clients (option 6)."`
	LeaseTime    Duration      `json:"leaseTime,omitempty" doc:"How long a lease lasts; 1h without it."`
	Reservations []Reservation `json:"reservations,omitempty" doc:"Addresses kept for one hardware address each."`
	// Others also get leases: clients that do not netboot and are no machine
	// of ours. They never become machines. Reservations are served without it.
	Others bool `json:"others,omitempty" doc:"Give addresses also to clients that do not netboot (laptops, BMCs, switches, phones). They never become machines. Without it only machines and reservations are served."`
}

// Reservation keeps an address for one hardware address.
type Reservation struct {
	MAC     MAC        `json:"mac" doc:"Hardware address."`
	Address netip.Addr `json:"address" doc:"The address it always gets."`
}

// SiteOperator may use the API with a bearer token.
type SiteOperator struct {
	Name string `json:"name" doc:"Shown in events."`
	// TokenSHA256 is the SHA-256 of the token in hex, so that the site file
	// holds no secret.
	TokenSHA256 string `json:"tokenSHA256" doc:"SHA-256 of the bearer token, in hex."`
}

// Role is what a node does in the cluster.
type Role string

const (
	RoleControlPlane Role = "control-plane"
	RoleWorker       Role = "worker"
)

// Selector chooses machines by what the installer found and by the list's
// labels. Every field that is set must match; an empty one chooses none.
// Texts are globs (path.Match), compared without regard to case.
type Selector struct {
	Manufacturer string            `json:"manufacturer,omitempty" doc:"The machine's manufacturer, as Dell*."`
	Product      string            `json:"product,omitempty" doc:"The machine's product name, as PowerEdge R6*."`
	Serial       string            `json:"serial,omitempty" doc:"The machine's serial number."`
	AssetTag     string            `json:"assetTag,omitempty" doc:"The machine's asset tag."`
	MinCPUs      int               `json:"minCPUs,omitempty" doc:"At least so many threads." minimum:"0"`
	MinMemory    Size              `json:"minMemory,omitempty" doc:"At least so much memory, as 64GiB."`
	Labels       map[string]string `json:"labels,omitempty" doc:"Labels of the machine's entry in the list."`
}

// Profile is what a machine boots and gets.
type Profile struct {
	Name string `json:"name" doc:"Name of the profile."`
	// Selector gives the profile to machines that nobody gave another one: the
	// first profile that matches.
	Selector Selector `json:"selector,omitzero" doc:"Which machines get this profile when nobody names one: the first that matches."`
	// Disk is the hint for machines whose entry and approval have none.
	Disk            DiskHint          `json:"disk,omitzero" doc:"Which disk to install on, where neither the approval nor the list says."`
	Role            Role              `json:"role" doc:"control-plane or worker." enum:"control-plane,worker"`
	KernelArguments []string          `json:"kernelArguments,omitempty" doc:"Added to the installed node's kernel command line."`
	Labels          map[string]string `json:"labels,omitempty" doc:"Kubernetes labels of the node."`
	Taints          []string          `json:"taints,omitempty" doc:"Kubernetes taints of the node, as key=value:effect. Absent on a control plane: none, it runs pods."`
	// Ignition is merged into what Rackseed makes; it is checked before any
	// machine sees it.
	Ignition string `json:"ignition,omitempty" doc:"Ignition config (JSON, spec 3.x) merged into the machine's own."`
}

// ListedMachine is a machine known beforehand, found by any of its MACs or by
// its SMBIOS UUID.
type ListedMachine struct {
	MAC     MAC        `json:"mac,omitempty" doc:"One of its hardware addresses."`
	UUID    string     `json:"uuid,omitempty" doc:"Its SMBIOS UUID, in either byte order."`
	Name    string     `json:"name,omitempty" doc:"Host name."`
	Profile string     `json:"profile,omitempty" doc:"Profile; without it the first whose selector matches, else the one of the role that the cluster needs next."`
	Address netip.Addr `json:"address,omitzero" doc:"Static address of the node."`
	// Labels are what selectors of profiles match.
	Labels map[string]string `json:"labels,omitempty" doc:"Labels that selectors of profiles match, as rack: r7."`
	// Approve lets it install without anyone approving it in the console.
	// Once: when a machine was installed as this entry's, the entry approves
	// nothing more. And never onto a disk that holds something: then a person
	// must approve.
	Approve bool     `json:"approve,omitempty" doc:"Install it without asking: once, and only onto an empty disk. Whoever has this address or UUID on the wire gets what the node gets, its secrets with it."`
	Disk    DiskHint `json:"disk,omitzero" doc:"Which disk to install on, where there are several."`
}

// SiteCluster are the settings of the Kubernetes cluster.
type SiteCluster struct {
	Name          string       `json:"name,omitempty" doc:"Name of the cluster; the site's name without it."`
	PodSubnet     netip.Prefix `json:"podSubnet,omitzero" doc:"Addresses of pods; 10.244.0.0/16 without it."`
	ServiceSubnet netip.Prefix `json:"serviceSubnet,omitzero" doc:"Addresses of services; 10.96.0.0/16 without it."`
	// ExtraSANs are more names and addresses for the API server's certificate.
	ExtraSANs []string `json:"extraSANs,omitempty" doc:"More names and addresses for the API server's certificate."`
}

// DiskHint chooses a disk: every field that is set must match. Empty: the only
// eligible one. A hint that matches several disks chooses none.
type DiskHint struct {
	Serial    string `json:"serial,omitempty" doc:"Serial number of the disk."`
	WWN       string `json:"wwn,omitempty" doc:"World wide name of the disk."`
	Path      string `json:"path,omitempty" doc:"Device path, as /dev/sda. Not stable: prefer the serial number."`
	Model     string `json:"model,omitempty" doc:"Model of the disk; a glob, as SAMSUNG MZ7*."`
	Transport string `json:"transport,omitempty" doc:"How it is attached: nvme, sata, sas, virtio, fc or iscsi."`
	MinSize   Size   `json:"minSize,omitempty" doc:"At least so large, as 400GB. Sizes are those on a label: one percent less counts too."`
	MaxSize   Size   `json:"maxSize,omitempty" doc:"At most so large, as 500GB; one percent more counts too."`
}

// Listed finds a machine in the site file's list, by UUID first: a NIC may
// have moved to another machine, a board's UUID has not. An entry with the very
// UUID goes before one that has it in the other byte order (SwapUUID).
func (s *Site) Listed(m Machine) (ListedMachine, bool) {
	for _, uuid := range []string{strings.ToLower(m.UUID), SwapUUID(m.UUID)} {
		for _, l := range s.Machines {
			if l.UUID != "" && strings.EqualFold(l.UUID, uuid) {
				return l, true
			}
		}
	}
	for _, l := range s.Machines {
		if l.MAC != "" && slices.Contains(m.MACs, l.MAC) && (l.UUID == "" || m.UUID == "") {
			return l, true
		}
	}
	return ListedMachine{}, false
}

// ClusterName is what the cluster is called.
func (s *Site) ClusterName() string { return cmp.Or(s.Cluster.Name, s.Name) }

// Expected are the entries of the list that no machine was seen for, as Listed
// finds it where no other entry fits better, in the list's order.
func (s *Site) Expected(seen []Machine) []ListedMachine {
	uuids := map[string]bool{}
	macs := map[MAC]bool{} // of all; true: of one whose UUID is not known
	for _, m := range seen {
		if m.UUID != "" {
			uuids[strings.ToLower(m.UUID)], uuids[SwapUUID(m.UUID)] = true, true
		}
		for _, a := range m.MACs {
			macs[a] = macs[a] || m.UUID == ""
		}
	}
	var list []ListedMachine
	for _, l := range s.Machines {
		unknown, known := macs[l.MAC]
		byMAC := l.MAC != "" && known && (l.UUID == "" || unknown)
		byUUID := l.UUID != "" && uuids[strings.ToLower(l.UUID)]
		if !byMAC && !byUUID {
			list = append(list, l)
		}
	}
	return list
}

// HasUUID says whether the entry's UUID is that one, in either byte order.
func (l ListedMachine) HasUUID(uuid string) bool {
	return l.UUID != "" && (strings.EqualFold(l.UUID, uuid) || strings.EqualFold(l.UUID, SwapUUID(uuid)))
}

// Key names the entry by what it finds its machine by.
func (l ListedMachine) Key() string {
	if l.UUID != "" {
		return "uuid:" + strings.ToLower(l.UUID)
	}
	return "mac:" + string(l.MAC)
}

// emulatedSlower is how much longer everything takes on machines that are
// emulated in software: a second's silence means nothing there.
const emulatedSlower = 5

// Slower is what the times are multiplied by after which replicas of the boot
// service give each other up; 0: by nothing.
func (s Site) Slower() int {
	if s.Emulated {
		return emulatedSlower
	}
	return 0
}
