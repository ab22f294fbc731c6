package machine

import "time"

const (
	MaxReplicas = 9 // in service at once
	MaxTargets  = 5 // of one handoff
)

// Replica is one running copy of the boot service.
type Replica struct {
	// ID is Raft's server ID, issued once and never again: one that lost its disk
	// comes back under another, since it may have forgotten what it promised.
	ID       string `json:"id"`
	Name     string `json:"name"`              // for people: the node's name, or "appliance"
	Machine  ID     `json:"machine,omitempty"` // the node that it runs on; "": the appliance
	Endpoint string `json:"endpoint"`          // host:port where the other replicas find it
	// Key is the SHA-256 of its public key (SubjectPublicKeyInfo).
	Key     []byte    `json:"key,omitempty"`
	Joined  time.Time `json:"joined"`
	Release string    `json:"release"`
	Level   uint64    `json:"level"` // the highest feature level that it supports
	// Proved is the log entry that was committed with its part since it is a
	// voter; 0: none, or it is none.
	Proved uint64 `json:"proved,omitempty"`
	// Left is when it was told that it is removed. It never comes back.
	Left time.Time `json:"left,omitzero"`
}

// InService says whether the replica was not removed.
func (r Replica) InService() bool { return r.Left.IsZero() }
