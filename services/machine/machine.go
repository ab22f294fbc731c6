// Package machine is Rackseed's vocabulary: the types that every other part
// speaks in, and the pure rules between them. It imports nothing of ours and
// does no I/O.
package machine

import (
	"net/netip"
	"time"
)

// ID names a machine for ever; it is chosen when the machine is first seen and
// carried in the command that says so ("m-" and eight hex digits).
type ID string

// MAC is a hardware address in canonical form: six lower-case hex octets with
// colons. Use ParseMAC for anything that comes from outside.
type MAC string

// Phase is where a machine stands on its way from a first packet to a Ready
// node. It only informs; what a machine may do is decided by intents.
type Phase string

const (
	PhaseSeen       Phase = "seen"       // a packet of it was seen, and no installer of it is at work
	PhaseLocal      Phase = "local"      // it went to its own disk: it was told to boot that, or waited too long
	PhaseWaiting    Phase = "waiting"    // its installer reported the inventory and waits for approval
	PhaseApproved   Phase = "approved"   // an install intent is open for it
	PhaseInstalling Phase = "installing" // the intent is claimed: its disk is being written
	PhaseInstalled  Phase = "installed"  // the disk is complete, it reboots
	PhaseBooted     Phase = "booted"     // its node agent reported from the installed system
	PhaseJoining    Phase = "joining"    // kubeadm runs on it
	PhaseReady      Phase = "ready"      // Kubernetes says Ready
	PhaseFailed     Phase = "failed"     // a step failed; Reason says which and why
	PhaseRescue     Phase = "rescue"     // its installer serves a shell to operators
)

// Machine is one physical or virtual server.
type Machine struct {
	ID      ID     `json:"id"`
	Name    string `json:"name,omitempty"` // host name, once approved (or from the site file)
	UUID    string `json:"uuid,omitempty"` // SMBIOS UUID, lower case; empty while unknown
	MACs    []MAC  `json:"macs"`           // every address it was seen with, first seen first
	Profile string `json:"profile,omitempty"`
	// Address is the static address of the node, set at approval.
	Address   netip.Addr `json:"address,omitzero"`
	Phase     Phase      `json:"phase" enum:"seen,local,waiting,approved,installing,installed,booted,joining,ready,failed,rescue"`
	Reason    string     `json:"reason,omitempty"` // why it is in Phase, for people
	Inventory *Inventory `json:"inventory,omitempty"`
	Session   *Session   `json:"session,omitempty"` // the newest one
	// NodeKey is the ed25519 public key (32 bytes) by which the installed
	// node signs its requests; made at approval, its private half is in the
	// machine's Ignition only.
	NodeKey []byte `json:"nodeKey,omitempty"`
	// Invited: until then it may be netbooted to be looked at, whatever is on
	// its disks: an operator asked for it.
	Invited time.Time `json:"invited,omitzero"`
	// Refused says that its installer came, and was not taken: it is not looked
	// at again while the same discovery window is open, or until somebody asks.
	Refused   *Refused  `json:"refused,omitempty"`
	FirstSeen time.Time `json:"firstSeen"`
	LastSeen  time.Time `json:"lastSeen"`
}

// Refused is why a machine's installer was not taken, and when.
type Refused struct {
	At  time.Time `json:"at"`
	Why string    `json:"why"`
}

// Approved says whether anybody ever approved the machine.
func (m *Machine) Approved() bool { return len(m.NodeKey) > 0 }

// Session is one boot of the installer on a machine. A new one revokes the
// one before it, and every intent that was bound to it.
type Session struct {
	ID      string    `json:"id"`
	SignKey []byte    `json:"signKey"` // ed25519 public key, 32 bytes: requests are signed with it
	SealKey []byte    `json:"sealKey"` // X25519 public key, 32 bytes: the Ignition is sealed to it
	Opened  time.Time `json:"opened"`
	Number  int       `json:"number"` // 1 for a machine's first
	// Left is when it was told to go back to the machine's own disk, because
	// nobody approved it in time; zero: it was not.
	Left time.Time `json:"left,omitzero"`
}

// IntentKind says what an intent orders.
type IntentKind string

const (
	IntentInstall   IntentKind = "install"   // write the machine's disk
	IntentBootstrap IntentKind = "bootstrap" // run kubeadm init; there is one, until it is abandoned
	IntentJoin      IntentKind = "join"      // run kubeadm join
	IntentRescue    IntentKind = "rescue"    // boot the installer once, to a shell
)

// Words are what a kind of intent orders, in words.
func (k IntentKind) Words() string {
	switch k {
	case IntentBootstrap:
		return "start of the cluster"
	case IntentRescue:
		return "rescue shell"
	}
	return string(k)
}

// IntentStatus is an intent's life: open → claimed → done, or failed (which a
// retry opens again under a new epoch), or revoked.
type IntentStatus string

const (
	IntentOpen    IntentStatus = "open"
	IntentClaimed IntentStatus = "claimed"
	IntentDone    IntentStatus = "done"
	IntentFailed  IntentStatus = "failed"
	IntentRevoked IntentStatus = "revoked"
)

// Intent is one committed, single-use, epoch-stamped order.
type Intent struct {
	ID      string     `json:"id"`
	Kind    IntentKind `json:"kind" enum:"install,bootstrap,join,rescue"`
	Machine ID         `json:"machine"`
	Epoch   uint64     `json:"epoch"`             // raised by each retry; a claim with an older one is refused
	Session string     `json:"session,omitempty"` // the installer session it is bound to
	Image   string     `json:"image,omitempty"`   // digest of the node image's manifest
	Disk    DiskHint   `json:"disk,omitzero"`
	// Erase is what is on the disk, in the words of its Contents, and may be
	// lost: whoever approved confirmed it. Empty: only an empty disk may be
	// written.
	Erase string `json:"erase,omitempty"`
	// Written says that a permission to write was ever granted under it: what
	// was on the disk before may be gone.
	Written bool         `json:"written,omitempty"`
	Status  IntentStatus `json:"status" enum:"open,claimed,done,failed,revoked"`
	Reason  string       `json:"reason,omitempty"`
	Created time.Time    `json:"created"`
	Changed time.Time    `json:"changed"`
}

// Live says whether the intent still allows something.
func (i *Intent) Live() bool {
	return i != nil && (i.Status == IntentOpen || i.Status == IntentClaimed || i.Status == IntentFailed)
}

// Lease is one DHCP binding. It exists only once it is committed.
type Lease struct {
	Address  netip.Addr `json:"address"`
	MAC      MAC        `json:"mac"`
	ClientID string     `json:"clientId,omitempty"` // option 61 in hex; empty when not sent
	Hostname string     `json:"hostname,omitempty"`
	Machine  ID         `json:"machine,omitempty"`
	Bound    time.Time  `json:"bound"`
	Expires  time.Time  `json:"expires"`
	// Declined marks an address that a client found in use (RFC 2131 §4.3.3):
	// it is given to nobody until Expires.
	Declined bool `json:"declined,omitempty"`
}

// Severity of an event.
type Severity string

const (
	Info    Severity = "info"
	Warning Severity = "warning"
	Error   Severity = "error"
)

// Event is one thing that happened. Seq never repeats and has no gaps.
type Event struct {
	Seq      uint64            `json:"seq"`
	Time     time.Time         `json:"time"`
	Machine  ID                `json:"machine,omitempty"`
	Kind     string            `json:"kind"` // "dhcp.ack", "boot.decided", "install.step" …
	Severity Severity          `json:"severity" enum:"info,warning,error"`
	Text     string            `json:"text"` // one sentence for people
	Data     map[string]string `json:"data,omitempty"`
}

// Chunk is a run of a machine's output lines, kept as a blob outside the log.
type Chunk struct {
	Machine ID     `json:"machine"`
	Stream  string `json:"stream"` // installer session ID, or "node-" and the boot ID
	First   uint64 `json:"first"`  // number of the first line, from 1
	Last    uint64 `json:"last"`
	Digest  string `json:"digest"` // sha256:… of the lines, each ended by \n
	Size    int64  `json:"size"`
	// Seq is the chunk's place among all chunks of the machine, from 1: what
	// a reader resumes from.
	Seq uint64 `json:"seq"`
	// Time is when it was committed, by the leader's clock: soon after its lines were
	// written, unless they could not be sent before.
	Time time.Time `json:"time,omitzero"`
}

// Image is a published artifact: a node image, the installer, firmware.
type Image struct {
	Ref    string `json:"ref"`    // "node", "installer", "ipxe"
	Digest string `json:"digest"` // of its OCI manifest
}
