// Package wire is what the installer and the node agent say to the boot
// service over plain HTTP, and how they prove who they are.
//
// The provisioning network is not trusted to keep secrets: requests are
// signed (ed25519), and what is secret is sealed to a key that exists only in
// the machine's memory (HPKE, RFC 9180). The machine, on the other hand, has
// no trust anchor until it is installed: it believes the boot service that
// its firmware found.
package wire

import (
	"encoding/json"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

// Paths of the machines' HTTP server.
const (
	PathTime     = "/v1/time"               // GET → Time
	PathSession  = "/v1/installer/session"  // POST SessionRequest → SessionReply; signed by the key it carries
	PathOrder    = "/v1/installer/order"    // GET ?wait=25s → Order; signed; long poll
	PathClaim    = "/v1/installer/claim"    // POST ClaimRequest → 204, or 409 with the reason; signed
	PathReport   = "/v1/installer/report"   // POST Report → 204; signed
	PathIgnition = "/v1/installer/ignition" // GET → Sealed; signed; until the install ends
	PathOutput   = "/v1/output"             // POST Output → OutputReply; signed, installer or node

	PathNodeReport = "/v1/node/report" // POST NodeReport → 204; signed by the node key
	PathNodeOrder  = "/v1/node/order"  // GET ?wait=25s → NodeOrder; signed by the node key
	PathNodeJoin   = "/v1/node/join"   // POST JoinRequest → Sealed JoinSecret, or 409 with the reason; signed by the node key

	PathNodeReplica = "/v1/node/replica" // GET?replica=ID&generation=N, of the one that the node has → ReplicaOrder; POST JoinRequest → Sealed ReplicaSecret; signed by the node key

	PathNodeAccess = "/v1/node/access" // GET → NodeAccess; signed by the node key

	PathBlob = "/blobs/" // GET /blobs/sha256:HEX, Range and strong ETag
)

// Time is the boot service's clock.
type Time struct {
	Now time.Time `json:"now"`
}

// SessionRequest opens an installer session.
type SessionRequest struct {
	SignKey   []byte            `json:"signKey"` // ed25519 public key
	SealKey   []byte            `json:"sealKey"` // X25519 public key
	Version   string            `json:"version"` // of the installer
	Inventory machine.Inventory `json:"inventory"`
}

// SessionReply names the session. A repeated request with the same keys gets
// the same session.
type SessionReply struct {
	Session string     `json:"session"`
	Machine machine.ID `json:"machine"`
}

// OrderKind is what the installer shall do now.
type OrderKind string

const (
	OrderWait    OrderKind = "wait"    // for approval; ask again
	OrderInstall OrderKind = "install" // Order's fields say what and where
	OrderRevoked OrderKind = "revoked" // a newer session exists, or the intent was revoked: stop
	OrderLeave   OrderKind = "leave"   // nobody approved in time: reboot to the machine's own disk
	OrderRescue  OrderKind = "rescue"  // serve a shell to SSHKeys; write nothing unasked
)

// Order is the boot service's answer to a waiting installer.
type Order struct {
	Kind   OrderKind        `json:"kind"`
	Reason string           `json:"reason,omitempty"`
	Intent string           `json:"intent,omitempty"`
	Epoch  uint64           `json:"epoch,omitempty"`
	Disk   machine.DiskHint `json:"disk,omitzero"`
	// Erase is what may be lost on the disk, as machine.Intent.Erase.
	Erase string     `json:"erase,omitempty"`
	Image *NodeImage `json:"image,omitempty"`
	// KernelArguments go on the installed node's kernel command line.
	KernelArguments []string `json:"kernelArguments,omitempty"`
	// Until is when a waiting installer will be told to leave; zero: never.
	Until time.Time `json:"until,omitzero"`
	// SSHKeys may log in to the rescue shell as root.
	SSHKeys []string `json:"sshKeys,omitempty"`
}

// NodeImage names the blobs of a node image.
type NodeImage struct {
	Digest string `json:"digest"` // of the manifest
	Files  []File `json:"files"`  // "root.erofs", "vmlinuz", "initrd.img", "grub.cfg", "shimx64.efi", "grubx64.efi", "mmx64.efi"
}

// File is one blob of an artifact.
type File struct {
	Name   string `json:"name"`
	Digest string `json:"digest"` // sha256:…
	Size   int64  `json:"size"`
}

// ClaimRequest asks, immediately before the first write, whether the intent
// still holds. It is granted once an epoch, and again to the same session.
type ClaimRequest struct {
	Intent string       `json:"intent"`
	Epoch  uint64       `json:"epoch"`
	Disk   machine.Disk `json:"disk"` // the one that will be written
}

// Step names of an install, in their order.
const (
	StepDisk       = "disk"       // choosing
	StepPartition  = "partition"  // GPT and file systems
	StepImage      = "image"      // streaming the root
	StepIgnition   = "ignition"   // running Ignition in the new root
	StepBootloader = "bootloader" // kernels, GRUB, boot entries
	StepReboot     = "reboot"     // done
)

// ReportStatus of a step.
type ReportStatus string

const (
	StepStarted  ReportStatus = "started"
	StepProgress ReportStatus = "progress"
	StepDone     ReportStatus = "done"
	StepFailed   ReportStatus = "failed"
)

// Report tells of one step of the install. A done StepReboot ends the intent.
type Report struct {
	// Number counts this session's reports from 1; a repeated one is ignored.
	Number uint64       `json:"number"`
	Intent string       `json:"intent"`
	Epoch  uint64       `json:"epoch"`
	Step   string       `json:"step"`
	Status ReportStatus `json:"status"`
	Text   string       `json:"text"`
	Done   int64        `json:"done,omitempty"`  // bytes
	Total  int64        `json:"total,omitempty"` // bytes
}

// Output is a run of log lines. Lines are numbered from 1 in each stream; what
// was sent twice is stored once. Without lines it only asks for Next.
type Output struct {
	Stream string   `json:"stream"` // the session's ID, or "node-" and the boot ID
	First  uint64   `json:"first"`
	Lines  []string `json:"lines"`
}

// OutputReply acknowledges lines that are committed: send from Next on.
type OutputReply struct {
	Next uint64 `json:"next"`
}

// NodeEvent is what the node agent tells.
type NodeEvent string

const (
	NodeBooted  NodeEvent = "booted"  // the installed system is up
	NodeJoining NodeEvent = "joining" // kubeadm starts
	NodeJoined  NodeEvent = "joined"  // kubeadm ended well
	NodeReady   NodeEvent = "ready"
	NodeUnready NodeEvent = "unready"
	NodeFailed  NodeEvent = "failed" // Text says what and why; the agent tries again
)

// NodeReport is one report of the node agent.
type NodeReport struct {
	BootID string    `json:"bootId"` // /proc/sys/kernel/random/boot_id
	Number uint64    `json:"number"` // counts this boot's reports from 1
	Event  NodeEvent `json:"event"`
	Text   string    `json:"text"`
	Slot   string    `json:"slot,omitempty"`  // "a" or "b"
	Image  string    `json:"image,omitempty"` // digest of the running node image
}

// NodeOrderKind is what the node shall do to be in the cluster.
type NodeOrderKind string

const (
	NodeInit NodeOrderKind = "init" // run kubeadm init: the bootstrap intent names this machine
	NodeJoin NodeOrderKind = "join" // ask PathNodeJoin for the secret, then run kubeadm join
	NodeWait NodeOrderKind = "wait" // Reason says for what; ask again
)

// NodeOrder is the boot service's answer to a node that is not in the cluster.
type NodeOrder struct {
	Kind   NodeOrderKind `json:"kind"`
	Reason string        `json:"reason,omitempty"`
	Intent string        `json:"intent,omitempty"`
}

// JoinRequest asks for what a node joins by. It claims the join intent of the
// node, under which the token is made. Each request makes a new token.
type JoinRequest struct {
	SealKey []byte `json:"sealKey"` // X25519 public key, 32 bytes, made for this request
}

// JoinSecret is what kubeadm join needs. It is sealed for JoinPurpose.
type JoinSecret struct {
	Intent       string   `json:"intent"`
	Epoch        uint64   `json:"epoch"`
	Token        string   `json:"token"`        // bootstrap token, short-lived
	CACertHashes []string `json:"caCertHashes"` // sha256:HEX of the cluster CA's public key (kubeadm's discovery)
	Endpoint     string   `json:"endpoint"`     // HOST:PORT of the Kubernetes API
}

// ReplicaOrder says whether a node runs a replica of the boot service.
type ReplicaOrder struct {
	Run bool `json:"run"`
	// Joined says that its replica is one already, and has been invited.
	Joined bool `json:"joined,omitempty"`
	// Left are the server IDs of its replicas that left for good. Nothing else ends
	// one that joined.
	Left  []string `json:"left,omitempty"`
	Image string   `json:"image,omitempty"` // what it runs, as HOST/REPOSITORY@DIGEST
	// Change says that one that runs another image is to run Image: its turn came.
	Change bool   `json:"change,omitempty"`
	Slower int    `json:"slower,omitempty"` // of an emulated site; see replica.Config
	Reason string `json:"reason,omitempty"`
}

// NodeAccess is who may log in to a node.
type NodeAccess struct {
	SSHKeys []string `json:"sshKeys"` // as root; of the site file
}

// ReplicaImageEnv is the variable that tells a node's replica which image it runs,
// as ReplicaOrder.Image. It is no argument: an older release would refuse one that it
// does not know.
const ReplicaImageEnv = "RACKSEED_IMAGE"

// ReplicaSecret is what a node's replica joins by, once. It is sealed for
// ReplicaPurpose.
type ReplicaSecret struct {
	Invitation json.RawMessage `json:"invitation"` // a peer.Invitation
}

// Sealed is a secret for one machine: HPKE base mode, DHKEM(X25519,
// HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305 (RFC 9180).
type Sealed struct {
	Ciphertext []byte `json:"ciphertext"` // the encapsulated key and the ciphertext, as crypto/hpke joins them
}

// ErrorReply is the body of every answer with a status of 400 and above.
type ErrorReply struct {
	Error string `json:"error"`
}
