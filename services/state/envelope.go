package state

import (
	"encoding/json"
	"fmt"
	"time"
)

// envelopeVersion is the version of what is around a command in the log.
const envelopeVersion = 1

// envelope is one entry of the log. Its format is held by golden files.
type envelope struct {
	V    int             `json:"v"`
	Kind string          `json:"kind"`
	At   time.Time       `json:"at"` // by the proposer's clock, UTC
	By   string          `json:"by"` // who asked
	Data json.RawMessage `json:"data"`
}

// kindInfo is what is known of one kind of command.
type kindInfo struct {
	kind   string
	level  uint64 // the least feature level that has it
	decode func([]byte) (Command, error)
}

// kinds lists every command that the log may hold.
var kinds = []kindInfo{
	known[SiteApply](1), known[ClusterCreate](1), known[EpochBegin](1), known[ImagePublish](1),
	known[MachineSee](1), known[LeaseBind](1), known[LeaseRelease](1), known[LeaseDecline](1),
	known[BootDecide](1), known[SessionOpen](1), known[MachineApprove](1), known[MachineForget](1),
	known[IntentClaim](1), known[IntentRetry](1), known[IntentRevoke](1),
	known[InstallReport](1), known[NodeReport](1), known[BootstrapClaim](1), known[OutputStore](1),
	known[BootstrapAbandon](1), known[JoinClaim](1), known[DiscoveryWindow](1), known[MachineInvite](1),
	known[RescueOpen](1), known[SessionLeave](1), known[SessionRefuse](1), known[SessionHere](1), known[MachineSilent](1),
	known[ReplicaTell](1), known[ReplicaInvite](1), known[ReplicaJoin](1), known[ReplicaProve](1), known[ReplicaLeave](1),
	known[HandoffStart](1), known[HandoffMove](1), known[HandoffDid](1), known[HandoffLost](1), known[HandoffResume](1), known[StateCheck](1),
	known[ClusterRecover](1), known[SetupRenew](1),
	known[RolloutStart](1), known[RolloutTell](1), known[RolloutDid](1), known[RolloutStop](1), known[RolloutKeep](1), known[FeatureRaise](1),
	known[KeyNext](1), known[KeyTurn](1), known[SecretReseal](1), known[RecoveryPut](1),
	known[UserPut](1), known[LoginOpen](1), known[LoginEnd](1), known[Note](1),
}

var kindByName = func() map[string]kindInfo {
	m := make(map[string]kindInfo, len(kinds))
	for _, k := range kinds {
		m[k.kind] = k
	}
	return m
}()

func known[T Command](level uint64) kindInfo {
	var zero T
	return kindInfo{kind: zero.Kind(), level: level, decode: func(b []byte) (Command, error) {
		var c T
		err := decodeStrict(b, &c)
		return c, err
	}}
}

// supported says whether commands of kind may be in a log of this feature
// level, and why not.
func supported(kind string, level uint64) error {
	k, ok := kindByName[kind]
	switch {
	case !ok:
		return fmt.Errorf("command %s is not known to this binary; it is of a newer release: install that one", kind)
	case k.level > level:
		return fmt.Errorf("command %s needs feature level %d and the cluster is at %d; upgrade every replica first", kind, k.level, level)
	}
	return nil
}

// unread says that an entry is of a release that this binary cannot follow.
func unread(kind string, own uint64) error {
	return fmt.Errorf("command %s is not known to this binary, which supports feature level %d; a newer release wrote it: install that one", kind, own)
}

// encode makes the log entry of a command.
func encode(at time.Time, by string, c Command) ([]byte, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("command %s: %w", c.Kind(), err)
	}
	return json.Marshal(envelope{V: envelopeVersion, Kind: c.Kind(), At: at.UTC().Round(0), By: by, Data: data})
}

// decode reads a log entry, of a binary that supports feature level own. An error
// means that this binary must not go on.
func decode(b []byte, own uint64) (envelope, Command, error) {
	var e envelope
	strict := decodeStrict(b, &e)
	if strict != nil { // perhaps a newer envelope: say so rather than which field is strange
		if json.Unmarshal(b, &e) != nil {
			return envelope{}, nil, fmt.Errorf("the entry is no envelope: %w", strict)
		}
	}
	if e.V != envelopeVersion {
		return envelope{}, nil, fmt.Errorf("the entry has version %d and this binary reads %d; another release wrote it: install that one", e.V, envelopeVersion)
	}
	if strict != nil {
		return envelope{}, nil, fmt.Errorf("the entry's envelope: %w", strict)
	}
	if k, ok := kindByName[e.Kind]; !ok || k.level > own {
		return envelope{}, nil, unread(e.Kind, own)
	}
	c, err := kindByName[e.Kind].decode(e.Data)
	if err != nil {
		return envelope{}, nil, fmt.Errorf("command %s: %w", e.Kind, err)
	}
	return e, c, nil
}
