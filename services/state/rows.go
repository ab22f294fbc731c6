package state

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
)

// FeatureLevel is the highest level of commands that this binary knows. The
// committed level (Cluster.FeatureLevel) rises only when every replica's is as
// high.
const FeatureLevel = 1

// firstFeatureLevel is where every cluster begins, whichever release begins it:
// a log replays alike on newer ones. Only a committed command raises it.
const firstFeatureLevel = 1

// Limits of what outsiders can fill. They are part of the state machine: a
// changed one is a new feature level.
const (
	maxEvents         = 100_000  // the oldest are dropped, the sequence goes on
	maxStrangers      = 2_000    // machines that nobody ever approved; a new one replaces the longest-silent
	maxField          = 256      // bytes of one string in an inventory
	maxFieldLarge     = 48       // the same in an inventory that is larger than maxInventory otherwise
	maxInventory      = 48 << 10 // bytes of an inventory as JSON, so that a stranger's row has 64 KiB at most
	maxNICs           = 256      // in one inventory
	maxDisks          = 1024     // in one inventory
	maxMACs           = 256      // of one machine
	maxChunks         = 10_000   // of one machine's output; the oldest are dropped
	maxStrangerChunks = 1_024    // the same of one that nobody ever approved
	maxPastSessions   = 64       // remembered keys of one machine
	maxPastBoots      = 1024     // remembered boots of one machine
	maxInstallIntents = 32       // of one machine; ended ones are dropped
	maxLogins         = 10_000   // the one that expires first is dropped
	maxText           = 1024     // bytes of text that a machine sent, in an event
	maxWord           = 128      // bytes of an identifier
	leaseMemory       = 7 * 24 * time.Hour
	takeoverSilence   = 20 * time.Second // of a session that writes, before another takes its machine over
	bootEventPause    = 10 * time.Second // a repeated equal boot decision within it makes no event, if it changes no phase
	bootGrace         = 15 * time.Minute // a machine that was told to boot the installer may open its session, though the window closed since
	joinPatience      = 30 * time.Minute // a control plane that joins keeps others from it for so long
	maxWindow         = 30 * 24 * time.Hour
)

// Cluster is the identity and authority of the whole.
type Cluster struct {
	ID           string `json:"id"`
	Generation   uint64 `json:"generation"`
	Epoch        uint64 `json:"epoch"` // of the leader's authority; 0 before the first
	FeatureLevel uint64 `json:"featureLevel"`
	SetupUsed    bool   `json:"setupUsed"`
	// Discovery is when the discovery window that operators opened closes;
	// the site file may keep it open besides.
	Discovery time.Time `json:"discovery,omitzero"`
}

// User is a person who may log in.
type User struct {
	Name         string    `json:"name"`
	PasswordHash []byte    `json:"passwordHash"` // bcrypt
	Created      time.Time `json:"created"`
}

// Login is a person's session. Whoever reads it checks Expires by its clock.
type Login struct {
	TokenHash []byte    `json:"tokenHash"` // SHA-256 of the bearer token
	User      string    `json:"user"`
	Opened    time.Time `json:"opened"`
	Expires   time.Time `json:"expires"`
}

// clusterRow is the one row of the cluster table. It exists from the first
// epoch on, the cluster's identity from ClusterCreate on.
type clusterRow struct {
	Cluster
	Created   bool   `json:"created"`
	SetupHash []byte `json:"setupHash,omitempty"`
	Leader    string `json:"leader,omitempty"`
	// Opened is when operators opened the discovery window last.
	Opened time.Time `json:"opened,omitzero"`
	// Term is the Raft term in which the present epoch began. A command from
	// another term comes from a leader that has not begun its own epoch.
	Term uint64 `json:"term"`
}

// machineRow is a machine with what the state remembers to judge its requests.
type machineRow struct {
	Machine machine.Machine  `json:"machine"`
	Profile *machine.Profile `json:"profile,omitempty"` // as it was at approval
	Report  uint64           `json:"report,omitempty"`  // last report number of the newest session
	// PastSessions are the signing keys of older sessions: their replayed
	// requests must not revoke a newer one.
	PastSessions [][]byte `json:"pastSessions,omitempty"`
	Boot         string   `json:"boot,omitempty"`       // the node's newest boot ID
	BootReport   uint64   `json:"bootReport,omitempty"` // last report number of it
	// BootGoesOn says that it reported again since it was taken for the newest.
	BootGoesOn bool       `json:"bootGoesOn,omitempty"`
	PastBoots  []pastBoot `json:"pastBoots,omitempty"`
	// Told is the last boot decision that made an event, and when.
	Told   machine.BootKind `json:"told,omitempty"`
	ToldAt time.Time        `json:"toldAt,omitzero"`
	// Fetched is when it fetched the installer's kernel since, and Silent says
	// that its silence since was told.
	Fetched time.Time `json:"fetched,omitzero"`
	Silent  bool      `json:"silent,omitempty"`
	// Heard is when the newest session last said something that it signed.
	// Packets do not count: anybody can send them.
	Heard time.Time `json:"heard,omitzero"`
}

// pastBoot is a boot of a node that is not its newest.
type pastBoot struct {
	ID     string `json:"id"`
	Report uint64 `json:"report"` // last report number of it
}

// approved says whether anybody ever approved the machine.
func (r *machineRow) approved() bool { return r.Machine.Approved() }

// listedRow is an entry of the site file's list that was used: a machine was
// installed as its. It stays when the machine is forgotten.
type listedRow struct {
	Entry   string     `json:"entry"` // machine.ListedMachine.Key
	Machine machine.ID `json:"machine"`
	At      time.Time  `json:"at"`
}

// intentRow is an intent in the order of opening.
type intentRow struct {
	Intent machine.Intent `json:"intent"`
	Order  uint64         `json:"order"`
	// Claimed is the disk that the present epoch was granted for.
	Claimed *machine.Disk `json:"claimed,omitempty"`
	// Wrote is the disk that a permission to write was granted for last. What that
	// install may have left on it is machine.Left of WroteAs, the node's name then.
	Wrote   machine.DiskHint `json:"wrote,omitzero"`
	WroteAs string           `json:"wroteAs,omitempty"`
	// Hardware is the fingerprint of what was approved (see fingerprint).
	Hardware string `json:"hardware,omitempty"`
	// CutOff says that it was revoked because the machine restarted.
	CutOff bool `json:"cutOff,omitempty"`
}

// secretRow is one named secret.
type secretRow struct {
	Name   string         `json:"name"`
	Sealed keyring.Sealed `json:"sealed"`
}

// Keyring is which data keys secrets are sealed under: their IDs.
type Keyring struct {
	Current string `json:"current"`
	// Next is one that replicas fetch, to become the current one. Old is the one
	// before, until nothing is sealed under it.
	Next string `json:"next,omitempty"`
	Old  string `json:"old,omitempty"`
	// For is the handoff at whose end the newest one was made.
	For string `json:"for,omitempty"`
	// Recipient is the recovery key's public part, "" while there is none; Copy the
	// data keys encrypted to it.
	Recipient string `json:"recipient,omitempty"`
	Copy      []byte `json:"copy,omitempty"`
}

// Keys are the IDs of all data keys that a replica needs.
func (k Keyring) Keys() (list []string) {
	for _, id := range []string{k.Current, k.Next, k.Old} {
		if id != "" {
			list = append(list, id)
		}
	}
	return list
}

// Mark names how the secrets are sealed and what opens them: a backup with another
// one may open no more. "": they are on their way to another data key.
func (k Keyring) Mark() string {
	if k.Current == "" || k.Next != "" || k.Old != "" {
		return ""
	}
	sum := sha256.Sum256(append([]byte(k.Current+"\x00"), k.Copy...))
	return hex.EncodeToString(sum[:])
}

// siteRow is the one row of the site table.
type siteRow struct {
	Site machine.Site `json:"site"`
}
