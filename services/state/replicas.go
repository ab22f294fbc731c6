package state

import (
	"crypto/subtle"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

const (
	maxInvitations    = 64        // that are open
	maxInvitationLife = time.Hour // of an invitation
)

// invitationRow is an invitation: open, or with who took it.
type invitationRow struct {
	TokenHash []byte     `json:"tokenHash"`
	Name      string     `json:"name"`
	Machine   machine.ID `json:"machine,omitempty"`
	Expires   time.Time  `json:"expires"`
	Replica   string     `json:"replica,omitempty"` // who took it
}

func (t tables) replica(id string) *machine.Replica {
	return first[machine.Replica](t, tableReplicas, byID, key(id))
}

// checkEndpoint says whether replicas can be told to connect there.
func checkEndpoint(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || len(s) > maxWord || net.ParseIP(host) == nil || port == "" || strings.Trim(port, "0123456789") != "" {
		return refuse("endpoint %.80q: an address and a port are expected, as 10.77.0.11:8300", s)
	}
	return nil
}

func checkReplica(id, endpoint, release, image string, key []byte, level uint64) error {
	if err := word("server ID", id); err != nil {
		return err
	}
	if err := checkEndpoint(endpoint); err != nil {
		return err
	}
	switch {
	case len(key) != 32:
		return refuse("replica %s: the hash of its key has %d bytes, 32 are expected", id, len(key))
	case level == 0 || len(release) > maxWord:
		return refuse("replica %s: its release %.40q or feature level %d is none", id, release, level)
	case image != "" && !digest.MatchString(image):
		return refuse("replica %s: its image %.80q: sha256: and 64 hex digits are expected", id, image)
	}
	return nil
}

func (c *change) replicaTell(x ReplicaTell) error {
	if err := checkReplica(x.ID, x.Endpoint, x.Release, x.Image, x.Key, x.Level); err != nil {
		return err
	}
	if err := word("replica's name", x.Name); err != nil {
		return err
	}
	now := machine.Replica{ID: x.ID, Name: x.Name, Machine: x.Machine, Joined: c.at}
	if old := c.replica(x.ID); old != nil {
		if !old.InService() {
			return refuse("replica %s was removed at %s and never comes back under this ID: join anew", x.ID, old.Left.Format(time.RFC3339))
		}
		if old.Machine != x.Machine {
			return refuse("replica %s runs on machine %s, not on %s", x.ID, old.Machine, x.Machine)
		}
		now = *old
		now.Name = x.Name
	} else if x.ID != c.cluster().Leader {
		return refuse("replica %s was never invited", x.ID)
	}
	if level := c.cluster().FeatureLevel; x.Level < level {
		return tooOld(x.ID, x.Level, level)
	}
	if now.Image != x.Image {
		now.FallBack = fallBack(now, x.Image)
	}
	if x.Protector != "" {
		if err := word("protector", x.Protector); err != nil {
			return err
		}
	}
	now.Endpoint, now.Key, now.Release, now.Level, now.Image, now.Protector = x.Endpoint, x.Key, x.Release, x.Level, x.Image, x.Protector
	if now.Machine != "" && now.Ordered == "" { // as one that a recovery made
		now.Ordered = x.Image
	}
	c.put(tableReplicas, &now)
	return nil
}

// tooOld refuses a replica that could not read what others will write.
func tooOld(name string, level, cluster uint64) error {
	return refuse("replica %s supports feature level %d and the cluster is at %d, so that it could not read the log: install a newer release there", name, level, cluster)
}

// fallBack is what a replica would go back to once it runs another image: what it
// ran until then, unless it went back just now.
func fallBack(r machine.Replica, image string) *machine.FallBack {
	if r.Image == "" || r.FallBack != nil && r.FallBack.Image == image {
		return nil
	}
	return &machine.FallBack{Image: r.Image, Release: r.Release, Level: r.Level}
}

func (c *change) replicaInvite(x ReplicaInvite) error {
	if len(x.TokenHash) != 32 {
		return refuse("invitation of %.40q: the token's hash has %d bytes, 32 are expected", x.Name, len(x.TokenHash))
	}
	if err := word("replica's name", x.Name); err != nil {
		return err
	}
	if x.Machine != "" && c.tables.machine(x.Machine) == nil {
		return refuse("invitation of %s: there is no machine %s", x.Name, x.Machine)
	}
	if !x.Expires.After(c.at) || x.Expires.Sub(c.at) > maxInvitationLife {
		return refuse("invitation of %s: it must end within %v", x.Name, maxInvitationLife)
	}
	if first[invitationRow](c.tables, tableInvitations, byID, x.TokenHash) != nil {
		return refuse("invitation of %s: this token is in use", x.Name)
	}
	kept := 0
	each(c.tables, tableInvitations, byID, nil, func(i *invitationRow) bool {
		joined := c.replica(i.Replica)
		switch {
		case i.Expires.After(c.at):
			kept++
		case joined == nil || !joined.InService(): // its answer may have been lost still
			c.remove(tableInvitations, i)
		}
		return true
	})
	if kept >= maxInvitations {
		return refuse("%d invitations are open, which is the most: they end by themselves within %v", kept, maxInvitationLife)
	}
	c.put(tableInvitations, &invitationRow{TokenHash: x.TokenHash, Name: x.Name, Machine: x.Machine, Expires: x.Expires.UTC()})
	c.event(x.Machine, "replica.invited", machine.Info, fmt.Sprintf("A replica %s of the boot service may join until %s", x.Name, x.Expires.UTC().Format(time.TimeOnly)), "name", x.Name, "by", c.by)
	return nil
}

func (c *change) replicaJoin(x ReplicaJoin) error {
	if err := checkReplica(x.ID, x.Endpoint, x.Release, x.Image, x.Key, x.Level); err != nil {
		return err
	}
	invitation := first[invitationRow](c.tables, tableInvitations, byID, x.TokenHash)
	switch {
	case invitation == nil:
		return refuse("the token was not issued here, or it is from another cluster: get a new one where the replica is to join")
	case invitation.Replica != "": // also later: its answer was lost
		old := c.replica(invitation.Replica)
		if old == nil || !old.InService() || subtle.ConstantTimeCompare(old.Key, x.Key) != 1 {
			return refuse("the token of replica %s was used already, by %s: get a new one", invitation.Name, invitation.Replica)
		}
		c.replicaAnswer = old
		return nil
	case !invitation.Expires.After(c.at):
		return refuse("the token of replica %s expired at %s: get a new one", invitation.Name, invitation.Expires.Format(time.RFC3339))
	case c.replica(x.ID) != nil:
		return refuse("server ID %s was used before", x.ID)
	case x.Level < c.cluster().FeatureLevel:
		return tooOld(invitation.Name, x.Level, c.cluster().FeatureLevel)
	}
	serving := 0
	each(c.tables, tableReplicas, byID, nil, func(r *machine.Replica) bool {
		if r.InService() {
			serving++
		}
		return true
	})
	if serving >= machine.MaxReplicas {
		return refuse("there are %d replicas, which is the most: remove one first", serving)
	}
	taken := *invitation
	taken.Replica = x.ID
	c.put(tableInvitations, &taken)
	r := &machine.Replica{
		ID: x.ID, Name: invitation.Name, Machine: invitation.Machine, Endpoint: x.Endpoint, Key: x.Key,
		Joined: c.at, Release: x.Release, Level: x.Level, Image: x.Image, Ordered: x.Image,
	}
	c.put(tableReplicas, r)
	c.replicaAnswer = r
	c.event(r.Machine, "replica.joined", machine.Info, fmt.Sprintf("Replica %s of the boot service joins from %s, as %s", r.Name, r.Endpoint, r.ID),
		"name", r.Name, "replica", r.ID, "endpoint", r.Endpoint, "release", r.Release)
	return nil
}

func (c *change) replicaProve(x ReplicaProve) error {
	old := c.replica(x.ID)
	if old == nil || !old.InService() {
		return refuse("there is no replica %.40q in service", x.ID)
	}
	now := *old
	if now.Proved = c.index; x.Undone {
		now.Proved = 0
	}
	c.put(tableReplicas, &now)
	return nil
}

func (c *change) replicaLeave(x ReplicaLeave) error {
	old := c.replica(x.ID)
	if old == nil {
		return refuse("there is no replica %.40q", x.ID)
	}
	if !old.InService() {
		return nil // told twice is told
	}
	now := *old
	now.Left, now.Proved = c.at, 0
	c.put(tableReplicas, &now)
	c.rolloutWithout(now.ID)
	c.event(now.Machine, "replica.left", machine.Info, fmt.Sprintf("Replica %s of the boot service leaves: %s", now.Name, clip(x.Reason)), "name", now.Name, "replica", now.ID, "by", c.by)
	return nil
}

// Replica is the replica with that server ID, also one that left.
func (v View) Replica(id string) (machine.Replica, bool) {
	if r := v.t.replica(id); r != nil {
		return *r, true
	}
	return machine.Replica{}, false
}

// Invited says whether there is an invitation of a token with that hash, of which
// machine's replica, and whether it was taken.
func (v View) Invited(tokenHash []byte) (of machine.ID, taken, ok bool) {
	i := first[invitationRow](v.t, tableInvitations, byID, tokenHash)
	if i == nil {
		return "", false, false
	}
	return i.Machine, i.Replica != "", true
}

// LeftReplicas lists the server IDs of a machine's replicas that left.
func (v View) LeftReplicas(of machine.ID) (ids []string) {
	each(v.t, tableReplicas, byID, nil, func(r *machine.Replica) bool {
		if r.Machine == of && !r.InService() {
			ids = append(ids, r.ID)
		}
		return true
	})
	return ids
}

// Replicas lists those in service, by ID.
func (v View) Replicas() []machine.Replica {
	var list []machine.Replica
	each(v.t, tableReplicas, byID, nil, func(r *machine.Replica) bool {
		if r.InService() {
			list = append(list, *r)
		}
		return true
	})
	return list
}
