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
	// Image is the digest of the image that it runs, as it tells; "": it runs from
	// none, as the appliance does.
	Image string `json:"image,omitempty"`
	// Protector is what protects its data keys on its disk, as it tells; "": it has
	// none yet.
	Protector string `json:"protector,omitempty"`
	// Ordered is the image that its node is told to run. What runs is changed by
	// nothing else.
	Ordered string `json:"ordered,omitempty"`
	// FallBack is what it ran before Image, and would go back to.
	FallBack *FallBack `json:"fallBack,omitempty"`
	// Proved is the log entry that was committed with its part since it is a
	// voter; 0: none, or it is none.
	Proved uint64 `json:"proved,omitempty"`
	// Left is when it was told that it is removed. It never comes back.
	Left time.Time `json:"left,omitzero"`
}

// FallBack is the image that a replica ran before, as it told it.
type FallBack struct {
	Image   string `json:"image"`
	Release string `json:"release"`
	Level   uint64 `json:"level"`
}

// Supports is the highest feature level that the replica supports, also if it goes
// back to what it ran before.
func (r Replica) Supports() uint64 {
	if r.FallBack != nil {
		return min(r.Level, r.FallBack.Level)
	}
	return r.Level
}

// InService says whether the replica was not removed.
func (r Replica) InService() bool { return r.Left.IsZero() }
