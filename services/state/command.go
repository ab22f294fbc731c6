package state

import (
	"net/netip"
	"time"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

// Command is one change of the state. It carries effects, never questions: the
// address that is given, the time, the token. So an old entry replays alike
// for ever. Kinds are versioned: a changed meaning is a new kind, and kinds
// once released are never removed.
//
// A command that the rules do not allow changes nothing and is answered with a
// *Refusal, alike on every replica.
type Command interface {
	// Kind names the command in the log, as "lease.bind/1".
	Kind() string
}

// SiteApply makes a checked site file the site.
type SiteApply struct {
	Site machine.Site `json:"site"`
}

// ClusterCreate is the first command of a cluster's life, and refused after it.
type ClusterCreate struct {
	ID         string `json:"id"`
	Generation uint64 `json:"generation"`
	// Key is the ID of the data key that secrets are sealed under.
	Key string `json:"key"`
	// Secrets by name: keys and certificates made before the command was
	// proposed ("pki/ca.crt", "console.key" …).
	Secrets map[string]keyring.Sealed `json:"secrets"`
	// SetupHash is the SHA-256 of the setup code; it works once.
	SetupHash []byte `json:"setupHash"`
}

// ClusterRecover begins a new generation of a cluster that lost the majority of its
// replicas for ever. Its log is the past of one of them; the new replica leads it
// alone.
type ClusterRecover struct {
	Generation uint64                    `json:"generation"` // later than the one before
	Secrets    map[string]keyring.Sealed `json:"secrets"`    // the new authority of replicas' certificates
	Replica    string                    `json:"replica"`    // server ID, never used before
	// Of the replica, where it is known where others find it.
	Name     string     `json:"name,omitempty"`
	Machine  machine.ID `json:"machine,omitempty"`
	Endpoint string     `json:"endpoint,omitempty"`
	Key      []byte     `json:"key,omitempty"`
	Release  string     `json:"release,omitempty"`
	Level    uint64     `json:"level,omitempty"`
	// From is whose past it is, by server ID or as a backup's name, and Index its
	// newest entry.
	From  string `json:"from"`
	Index uint64 `json:"index"`
}

// SetupRenew makes a new setup code, by which one person becomes an administrator:
// for when nobody can log in any more. Only root on a machine with a replica can ask
// for it.
type SetupRenew struct {
	SetupHash []byte `json:"setupHash"` // SHA-256 of the code; it works once
}

// EpochBegin begins a leader's authority; the epoch is the last one plus one.
type EpochBegin struct {
	Leader string `json:"leader"`
}

// ImagePublish names artifacts that are complete in the blob store.
type ImagePublish struct {
	Images []machine.Image `json:"images"`
}

// ViaKernel is MachineSee.Via where the machine fetched the installer's kernel.
const ViaKernel = "http.kernel"

// MachineSee notes a packet of a machine. It is found by UUID, then by MAC; one
// never seen is created under ID. The first packet, and each one after a
// silence that the edge finds worth telling, has a Text and makes an event.
type MachineSee struct {
	ID   machine.ID  `json:"id"`
	MAC  machine.MAC `json:"mac"`
	UUID string      `json:"uuid,omitempty"`
	Via  string      `json:"via"`            // "dhcp.discover", "http.script"
	Text string      `json:"text,omitempty"` // "" : no event
}

// LeaseBind gives an address. Refused while another client holds it, unless
// that lease has run out at the command's time.
type LeaseBind struct {
	Lease machine.Lease `json:"lease"`
	Event bool          `json:"event,omitempty"` // first binding or changed address: tell it
}

// LeaseRelease ends a lease (DHCPRELEASE). Refused if MAC does not hold it.
type LeaseRelease struct {
	Address netip.Addr  `json:"address"`
	MAC     machine.MAC `json:"mac"`
}

// LeaseDecline keeps an address from everyone until Until (DHCPDECLINE).
type LeaseDecline struct {
	Address netip.Addr  `json:"address"`
	MAC     machine.MAC `json:"mac"`
	Until   time.Time   `json:"until"`
}

// BootDecide records what a machine was told to boot, and why. It is refused
// when machine.NextBoot on the state it is applied to says otherwise: then the
// edge decides again.
type BootDecide struct {
	Machine  machine.ID           `json:"machine"`
	Decision machine.BootDecision `json:"decision"`
}

// SessionOpen opens an installer session. The machine is found by the
// inventory's UUID, then by its MACs (unless an earlier inventory showed that
// their machine has another UUID: then a network card moved), else created
// under NewID. An older session is revoked with the live install intent bound
// to it. Refused for a machine that boots its own disk (machine.NextBoot), while
// a session that writes is heard of, and for an approved machine's address.
type SessionOpen struct {
	NewID     machine.ID        `json:"newId"`
	Session   machine.Session   `json:"session"` // Number is set by the state
	Inventory machine.Inventory `json:"inventory"`
}

// MachineApprove opens an install intent for a machine, bound to its session.
// Refused if the session is not the machine's newest, if it has a live install
// intent, or if the name or address is another machine's.
type MachineApprove struct {
	Machine machine.ID       `json:"machine"`
	Session string           `json:"session"`
	Intent  string           `json:"intent"`
	Name    string           `json:"name"`
	Profile machine.Profile  `json:"profile"`
	Address netip.Addr       `json:"address"`
	Image   string           `json:"image"`
	Disk    machine.DiskHint `json:"disk,omitzero"`
	// NodeKey is the ed25519 key that the installed node's requests are checked
	// with, NodeSeed the seed by which it signs: a secret, named NodeSecret.
	NodeKey  []byte         `json:"nodeKey"`
	NodeSeed keyring.Sealed `json:"nodeSeed"`
	// Erase is what is on that disk and may be lost, as machine.Intent.Erase.
	Erase string `json:"erase,omitempty"`
	// Bootstrap is the ID for the bootstrap intent, which is opened for this
	// machine if its role is control-plane and there is none.
	Bootstrap string `json:"bootstrap"`
}

// MachineForget removes a machine that has no live intent.
type MachineForget struct {
	Machine machine.ID `json:"machine"`
}

// IntentClaim is asked for immediately before the first write. Granted to the
// session the intent is bound to, at its present epoch, while it is open; and
// again to the same session and epoch.
type IntentClaim struct {
	Intent  string       `json:"intent"`
	Epoch   uint64       `json:"epoch"`
	Session string       `json:"session"`
	Disk    machine.Disk `json:"disk"`
}

// IntentRetry opens a failed install intent again, under the next epoch.
type IntentRetry struct {
	Intent string            `json:"intent"`
	Disk   *machine.DiskHint `json:"disk,omitempty"`  // replaces the hint
	Erase  string            `json:"erase,omitempty"` // with Disk: what may be lost there
}

// IntentRevoke ends a live install, join or rescue intent that must not go on,
// or the bootstrap intent while it is open: the next control plane approved then
// gets another. A claimed bootstrap is refused: the cluster may have been
// started (see BootstrapAbandon).
type IntentRevoke struct {
	Intent string `json:"intent"`
	Reason string `json:"reason"`
}

// InstallReport is a report of the installer. A repeated number changes
// nothing. A failed step fails the intent; a done StepReboot ends it.
type InstallReport struct {
	Machine machine.ID  `json:"machine"`
	Session string      `json:"session"`
	Report  wire.Report `json:"report"`
}

// NodeReport is a report of the node agent. A repeated number of the same boot
// changes nothing. NodeJoined of the bootstrap machine ends the bootstrap
// intent.
type NodeReport struct {
	Machine machine.ID      `json:"machine"`
	Report  wire.NodeReport `json:"report"`
}

// BootstrapClaim asks for the one permission to run kubeadm init. Granted to
// the machine that the bootstrap intent names, until the intent is done.
type BootstrapClaim struct {
	Machine machine.ID `json:"machine"`
}

// BootstrapAbandon gives up a cluster whose start was permitted, because the
// machine that had the permission is lost. That machine is forgotten, and the
// cluster's keys are replaced, so that what it may have started can never be
// taken for the cluster: there are never two. Refused while another machine has
// joined, or is joining, what it started.
type BootstrapAbandon struct {
	Intent string `json:"intent"`
	Reason string `json:"reason"`
	// Secrets replace those of the same names; the Kubernetes PKI must be
	// among them.
	Secrets map[string]keyring.Sealed `json:"secrets"`
}

// JoinClaim asks for the permission to run kubeadm join. Granted to an installed
// node once the cluster is started; to one control plane at a time (etcd's
// members change one by one). Intent is the ID if the machine has no join intent
// yet; else that is granted again under the next epoch.
type JoinClaim struct {
	Machine machine.ID `json:"machine"`
	Intent  string     `json:"intent"`
}

// DiscoveryWindow opens the discovery window until a time; one that has passed
// closes it. The site file may keep it open besides (machine.SiteDiscovery).
type DiscoveryWindow struct {
	Until time.Time `json:"until"`
}

// MachineInvite lets one machine be netbooted to be looked at until a time,
// whatever is on its disks. Refused for one that is installed, or being so.
type MachineInvite struct {
	Machine machine.ID `json:"machine"`
	Until   time.Time  `json:"until"`
}

// RescueOpen has a machine boot the installer once, to a shell for operators. It
// must be restarted for that by whoever asks.
type RescueOpen struct {
	Machine machine.ID `json:"machine"`
	Intent  string     `json:"intent"`
}

// SessionLeave ends a session that waited too long for approval: the installer
// restarts the machine, which goes back to its own disk.
type SessionLeave struct {
	Machine machine.ID `json:"machine"`
	Session string     `json:"session"`
}

// SessionRefuse says that a machine's installer came with something that is not
// taken, as an inventory that is too large: without it the machine would be sent to
// the installer again at each restart. Anybody can send such a thing in a machine's
// name: it counts only for one that was told to boot the installer just now, and is
// not approved.
type SessionRefuse struct {
	MACs []machine.MAC `json:"macs"`
	UUID string        `json:"uuid,omitempty"`
	Why  string        `json:"why"`
}

// SessionHere says that a session was heard of after its machine had been taken
// for restarted, because somebody had asked what it boots: the machine is what it
// was before. Without effect where nothing else was believed.
type SessionHere struct {
	Machine machine.ID `json:"machine"`
	Session string     `json:"session"`
}

// MachineSilent tells that a machine was given something to boot at Decided and
// was not heard of since. Refused if it was, or if that was told already.
type MachineSilent struct {
	Machine machine.ID `json:"machine"`
	Decided time.Time  `json:"decided"`
	Text    string     `json:"text"` // what happened last, and the likely causes
}

// OutputStore makes a chunk of output part of a machine's log. Its blob is on
// disk before the command is proposed. A chunk that begins after the next
// expected line is refused; one that holds only known lines changes nothing.
type OutputStore struct {
	Chunk machine.Chunk `json:"chunk"` // Seq and Time are set by the state
}

// UserPut makes a person who may log in. With SetupHash it is the setup: it
// must match, and works once.
type UserPut struct {
	Name         string `json:"name"`
	PasswordHash []byte `json:"passwordHash"` // bcrypt
	SetupHash    []byte `json:"setupHash,omitempty"`
}

// LoginOpen begins a person's session in the console or the CLI.
type LoginOpen struct {
	TokenHash []byte    `json:"tokenHash"` // SHA-256 of the bearer token
	User      string    `json:"user"`
	Expires   time.Time `json:"expires"`
}

// LoginEnd ends it.
type LoginEnd struct {
	TokenHash []byte `json:"tokenHash"`
}

// ReplicaTell is what a replica says of itself at its start and when it changes:
// its endpoint, its release. The first replica of a cluster, which nobody could
// invite, is made by it.
type ReplicaTell struct {
	ID       string     `json:"id"`
	Name     string     `json:"name"`
	Machine  machine.ID `json:"machine,omitempty"`
	Endpoint string     `json:"endpoint"`
	Key      []byte     `json:"key"`
	Release  string     `json:"release"`
	Level    uint64     `json:"level"`
	Image    string     `json:"image,omitempty"` // digest; "": it runs from none
	// Protector is what protects its data keys on its disk; "": it has none yet.
	Protector string `json:"protector,omitempty"`
}

// ReplicaInvite lets one new replica join, once, until Expires.
type ReplicaInvite struct {
	TokenHash []byte     `json:"tokenHash"` // SHA-256 of the token
	Name      string     `json:"name"`
	Machine   machine.ID `json:"machine,omitempty"`
	Expires   time.Time  `json:"expires"`
}

// ReplicaJoin takes an invitation: the replica gets the server ID, which no
// replica ever had. Granted again to who took it before with the same key: its
// answer may have been lost.
type ReplicaJoin struct {
	TokenHash []byte `json:"tokenHash"`
	ID        string `json:"id"` // for a new one; Result.Replica says which it got
	Endpoint  string `json:"endpoint"`
	Key       []byte `json:"key"`
	Release   string `json:"release"`
	Level     uint64 `json:"level"`
	Image     string `json:"image,omitempty"` // as in ReplicaTell
}

// ReplicaProve is committed with the part of a new voter, which shows that it
// does its part. Undone takes the proof back: it is no voter, or is made one anew.
type ReplicaProve struct {
	ID     string `json:"id"`
	Undone bool   `json:"undone,omitempty"`
}

// ReplicaLeave ends a replica: it is told, and then removed from Raft's
// configuration.
type ReplicaLeave struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
}

// HandoffStart begins a plan to move the boot service, from the replica that
// leads or to more of them. Refused while another plan is not over.
type HandoffStart struct {
	Handoff machine.Handoff `json:"handoff"` // Step, Since and Moved are set by the state
}

// HandoffMove moves the plan on. Refused if it does not stand at From, or cannot
// go from there to To. Reason is for giving it up.
type HandoffMove struct {
	ID     string              `json:"id"`
	From   machine.HandoffStep `json:"from"`
	To     machine.HandoffStep `json:"to"`
	Reason string              `json:"reason,omitempty"`
}

// HandoffDid notes what was done for the plan.
type HandoffDid struct {
	ID   string `json:"id"`
	Text string `json:"text"`
}

// HandoffLost declares the replica that leaves destroyed: the plan only goes
// forward, and it is removed without its acknowledgement. Refused while it leads.
type HandoffLost struct {
	ID string `json:"id"`
}

// HandoffResume has a plan go forward that was given up while the replica that
// leaves was away, without the targets that are away.
type HandoffResume struct {
	ID string `json:"id"`
}

// RolloutStart begins the rollout of an image of the boot service. Refused while
// another one or a handoff is under way.
type RolloutStart struct {
	Rollout machine.Rollout `json:"rollout"` // ID, Image, By and Within; the state sets the rest
}

// RolloutTell has the node of one replica told to run the image. Refused while it
// is another one's turn.
type RolloutTell struct {
	ID      string `json:"id"`
	Replica string `json:"replica"`
}

// RolloutDid says that the replica whose turn it is runs the image, and took part
// in a commit since.
type RolloutDid struct {
	ID      string `json:"id"`
	Replica string `json:"replica"`
}

// RolloutStop ends a rollout; the replica whose turn it is is told its earlier
// image.
type RolloutStop struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
}

// RolloutKeep gives the earlier images up: no replica goes back to one, and the
// feature level may rise above what they support.
type RolloutKeep struct{}

// FeatureRaise raises the cluster's feature level. Refused where a replica in
// service, or what it would go back to, does not support it. A binary that does not
// support it halts at this entry.
type FeatureRaise struct {
	Level uint64 `json:"level"`
}

// KeyNext names a new data key, which replicas fetch from each other before
// anything is sealed under it. It replaces one that is not current yet.
type KeyNext struct {
	Key string `json:"key"` // its ID
	// For is the handoff whose end makes it.
	For string `json:"for,omitempty"`
	// Recipient is the recovery key's public part, Copy the data keys encrypted to
	// it, the new one among them; both "" while there is no recovery key.
	Recipient string `json:"recipient,omitempty"`
	Copy      []byte `json:"copy,omitempty"`
}

// KeyTurn makes the next data key the current one. What was sealed under the one
// before is refused from then on.
type KeyTurn struct {
	Key string `json:"key"`
}

// SecretReseal replaces secrets by the same ones sealed under the current data
// key. One that was changed meanwhile stays.
type SecretReseal struct {
	Secrets []Resealed `json:"secrets"`
}

// Resealed is a secret that is sealed anew.
type Resealed struct {
	Name string `json:"name"`
	// Was is the SHA-256 of the ciphertext that it replaces.
	Was    []byte         `json:"was"`
	Sealed keyring.Sealed `json:"sealed"`
}

// RecoveryPut replaces the recovery key.
type RecoveryPut struct {
	Recipient string   `json:"recipient"` // its public part
	Copy      []byte   `json:"copy"`      // the data keys, encrypted to it
	Keys      []string `json:"keys"`      // their IDs; all that secrets may be sealed under
}

// StateCheck has every replica remember the hash of its state at this entry: they
// must be equal. It changes nothing.
type StateCheck struct{}

// Note is an event without any other change.
type Note struct {
	Machine  machine.ID        `json:"machine,omitempty"`
	What     string            `json:"what"` // the event's kind
	Severity machine.Severity  `json:"severity"`
	Text     string            `json:"text"`
	Data     map[string]string `json:"data,omitempty"`
}

func (SiteApply) Kind() string        { return "site.apply/1" }
func (ClusterCreate) Kind() string    { return "cluster.create/1" }
func (EpochBegin) Kind() string       { return "epoch.begin/1" }
func (ImagePublish) Kind() string     { return "image.publish/1" }
func (MachineSee) Kind() string       { return "machine.see/1" }
func (LeaseBind) Kind() string        { return "lease.bind/1" }
func (LeaseRelease) Kind() string     { return "lease.release/1" }
func (LeaseDecline) Kind() string     { return "lease.decline/1" }
func (BootDecide) Kind() string       { return "boot.decide/1" }
func (SessionOpen) Kind() string      { return "session.open/1" }
func (MachineApprove) Kind() string   { return "machine.approve/1" }
func (MachineForget) Kind() string    { return "machine.forget/1" }
func (IntentClaim) Kind() string      { return "intent.claim/1" }
func (IntentRetry) Kind() string      { return "intent.retry/1" }
func (IntentRevoke) Kind() string     { return "intent.revoke/1" }
func (InstallReport) Kind() string    { return "install.report/1" }
func (NodeReport) Kind() string       { return "node.report/1" }
func (BootstrapClaim) Kind() string   { return "bootstrap.claim/1" }
func (BootstrapAbandon) Kind() string { return "bootstrap.abandon/1" }
func (JoinClaim) Kind() string        { return "join.claim/1" }
func (DiscoveryWindow) Kind() string  { return "discovery.window/1" }
func (MachineInvite) Kind() string    { return "machine.invite/1" }
func (RescueOpen) Kind() string       { return "rescue.open/1" }
func (SessionLeave) Kind() string     { return "session.leave/1" }
func (SessionRefuse) Kind() string    { return "session.refuse/1" }
func (SessionHere) Kind() string      { return "session.here/1" }
func (MachineSilent) Kind() string    { return "machine.silent/1" }
func (OutputStore) Kind() string      { return "output.store/1" }
func (UserPut) Kind() string          { return "user.put/1" }
func (LoginOpen) Kind() string        { return "login.open/1" }
func (LoginEnd) Kind() string         { return "login.end/1" }
func (ReplicaTell) Kind() string      { return "replica.tell/1" }
func (ReplicaInvite) Kind() string    { return "replica.invite/1" }
func (ReplicaJoin) Kind() string      { return "replica.join/1" }
func (ReplicaProve) Kind() string     { return "replica.prove/1" }
func (ReplicaLeave) Kind() string     { return "replica.leave/1" }
func (ClusterRecover) Kind() string   { return "cluster.recover/1" }
func (SetupRenew) Kind() string       { return "setup.renew/1" }
func (HandoffStart) Kind() string     { return "handoff.start/1" }
func (HandoffMove) Kind() string      { return "handoff.move/1" }
func (HandoffDid) Kind() string       { return "handoff.did/1" }
func (HandoffLost) Kind() string      { return "handoff.lost/1" }
func (HandoffResume) Kind() string    { return "handoff.resume/1" }
func (RolloutStart) Kind() string     { return "rollout.start/1" }
func (RolloutTell) Kind() string      { return "rollout.tell/1" }
func (RolloutDid) Kind() string       { return "rollout.did/1" }
func (RolloutStop) Kind() string      { return "rollout.stop/1" }
func (RolloutKeep) Kind() string      { return "rollout.keep/1" }
func (FeatureRaise) Kind() string     { return "feature.raise/1" }
func (KeyNext) Kind() string          { return "key.next/1" }
func (KeyTurn) Kind() string          { return "key.turn/1" }
func (SecretReseal) Kind() string     { return "secret.reseal/1" }
func (RecoveryPut) Kind() string      { return "recovery.put/1" }
func (StateCheck) Kind() string       { return "state.check/1" }
func (Note) Kind() string             { return "note/1" }
