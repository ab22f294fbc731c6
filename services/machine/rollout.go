package machine

import (
	"slices"
	"time"
)

// RolloutStep is where the rollout of an image of the boot service stands.
type RolloutStep string

// The steps.
const (
	RolloutRolling RolloutStep = "rolling" // one replica after another runs the new image
	RolloutDone    RolloutStep = "done"    // all run it
	RolloutStopped RolloutStep = "stopped" // one did not come back with it, or somebody stopped it
)

// Over says whether nothing is left to do.
func (s RolloutStep) Over() bool { return s != RolloutRolling }

// Rollout is a plan by which the replicas on nodes run another image, one after
// another: kept in the log, gone on with by whoever leads.
type Rollout struct {
	ID    string      `json:"id"`
	Step  RolloutStep `json:"step"`
	Image string      `json:"image"` // the digest of what all shall run
	By    string      `json:"by"`
	Since time.Time   `json:"since"` // its start
	// Within is how long a replica has to be back with the image.
	Within Duration `json:"within"`
	// Turn is the replica that was told to run the image, at Told; "": none is.
	Turn string    `json:"turn,omitempty"`
	Told time.Time `json:"told,omitzero"`
	// Done are those that are back with it, and took part in a commit since.
	Done []string `json:"done,omitempty"`
	// Reason says why it was stopped.
	Reason string `json:"reason,omitempty"`
}

// Left are the replicas on nodes that are not done, in the order of all.
func (r Rollout) Left(all []Replica) []Replica {
	return slices.DeleteFunc(slices.Clone(all), func(x Replica) bool {
		return x.Machine == "" || !x.InService() || slices.Contains(r.Done, x.ID)
	})
}

// Words are a rollout's step for people.
func (r Rollout) Words() string {
	switch r.Step {
	case RolloutRolling:
		return "one replica after another runs the new image, the one that leads last"
	case RolloutDone:
		return "every replica on a node runs the new image"
	}
	return "it was stopped; replicas that run the new image go on with it"
}
