package state

import (
	"fmt"
	"slices"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

// maxWithin bounds how long a replica may have to be back with a new image.
const maxWithin = 24 * time.Hour

// ServiceRef is under which ref the boot service's own image is published.
const ServiceRef = "service"

func (t tables) rollout() *machine.Rollout {
	return first[machine.Rollout](t, tableRollout, byID, []byte{0})
}

// Rollout is the newest rollout of an image of the boot service, also one that is
// over.
func (v View) Rollout() (machine.Rollout, bool) {
	if r := v.t.rollout(); r != nil {
		return *r, true
	}
	return machine.Rollout{}, false
}

// onNodes are the replicas in service that run on nodes.
func (t tables) onNodes() (list []machine.Replica) {
	each(t, tableReplicas, byID, nil, func(r *machine.Replica) bool {
		if r.InService() && r.Machine != "" {
			list = append(list, *r)
		}
		return true
	})
	return list
}

func (c *change) rolloutStart(x RolloutStart) error {
	r := x.Rollout
	if err := word("rollout", r.ID); err != nil {
		return err
	}
	if old := c.rollout(); old != nil && !old.Step.Over() {
		return refuse("a rollout is under way: see how far it is with: rackseed service status")
	}
	if h := c.handoff(); h != nil && !h.Step.Over() {
		return refuse("a handoff is under way (%s): wait for its end, or give it up (rackseed handoff abort)", h.Step)
	}
	published := false
	each(c.tables, tableImages, byID, nil, func(i *machine.Image) bool {
		published = published || i.Digest == r.Image
		return !published
	})
	on := c.onNodes()
	switch {
	case !digest.MatchString(r.Image):
		return refuse("rollout: image %.80q: sha256: and 64 hex digits are expected", r.Image)
	case !published:
		return refuse("rollout: image %.19s… is not published: push it first (rackseed image push)", r.Image)
	case len(on) == 0:
		return refuse("no replica of the boot service runs on a node: a newer stick renews the appliance")
	case !slices.ContainsFunc(on, func(x machine.Replica) bool { return x.Image != r.Image || x.Ordered != r.Image }):
		return refuse("every replica on a node runs image %.19s… already", r.Image)
	case r.Within <= 0 || time.Duration(r.Within) > maxWithin:
		return refuse("rollout: a replica must be back within a time of at most %v, and this is %v", maxWithin, time.Duration(r.Within))
	}
	c.put(tableRollout, &machine.Rollout{ID: r.ID, Step: machine.RolloutRolling, Image: r.Image, By: r.By, Since: c.at, Within: r.Within})
	c.event("", "rollout.started", machine.Info, fmt.Sprintf("The replicas on nodes shall run image %.19s…, one after another, as %s asked", r.Image, asker(r.By)),
		"rollout", r.ID, "image", r.Image, "by", r.By)
	return nil
}

// rolling is a copy of the rollout that is under way.
func (c *change) rolling(id string) (*machine.Rollout, error) {
	old := c.rollout()
	if old == nil || old.ID != id || old.Step.Over() {
		return nil, refuse("rollout %.40q is not under way", id)
	}
	r := *old
	r.Done = slices.Clone(old.Done)
	return &r, nil
}

func (c *change) rolloutTell(x RolloutTell) error {
	r, err := c.rolling(x.ID)
	if err != nil {
		return err
	}
	old := c.replica(x.Replica)
	switch {
	case r.Turn != "":
		return refuse("rollout %s: it is the turn of replica %s", x.ID, r.Turn)
	case old == nil || !old.InService() || old.Machine == "":
		return refuse("rollout %s: there is no replica %.40q on a node", x.ID, x.Replica)
	case slices.Contains(r.Done, x.Replica):
		return refuse("rollout %s: replica %s is done", x.ID, x.Replica)
	}
	now := *old
	now.Ordered = r.Image
	c.put(tableReplicas, &now)
	r.Turn, r.Told = x.Replica, c.at
	c.put(tableRollout, r)
	c.event(now.Machine, "rollout.told", machine.Info, fmt.Sprintf("The node of replica %s is told to run image %.19s…", now.Name, r.Image), "rollout", r.ID, "replica", now.ID, "image", r.Image)
	return nil
}

func (c *change) rolloutDid(x RolloutDid) error {
	r, err := c.rolling(x.ID)
	if err != nil {
		return err
	}
	now := c.replica(x.Replica)
	switch {
	case r.Turn != x.Replica || now == nil:
		return refuse("rollout %s: it is the turn of replica %.40q, not of %.40q", x.ID, r.Turn, x.Replica)
	case now.Image != r.Image:
		return refuse("rollout %s: replica %s runs image %.19s…", x.ID, x.Replica, now.Image)
	}
	r.Turn, r.Done = "", append(r.Done, x.Replica)
	c.event(now.Machine, "rollout.did", machine.Info, fmt.Sprintf("Replica %s runs release %s, and took part in a commit", now.Name, now.Release), "rollout", r.ID, "replica", now.ID, "image", r.Image, "release", now.Release)
	c.rolloutGoesOn(r, c.onNodes())
	return nil
}

// rolloutGoesOn writes a rollout, which is done if none of the replicas on nodes is
// left. From then on the image is the one that new replicas run.
func (c *change) rolloutGoesOn(r *machine.Rollout, on []machine.Replica) {
	if len(r.Left(on)) == 0 {
		r.Step = machine.RolloutDone
		c.put(tableImages, &machine.Image{Ref: ServiceRef, Digest: r.Image})
		c.event("", "rollout.done", machine.Info, fmt.Sprintf("Every replica on a node runs image %.19s… of the boot service", r.Image), "rollout", r.ID, "image", r.Image)
	}
	c.put(tableRollout, r)
}

// rolloutWithout has a rollout that is under way go on without a replica that left.
func (c *change) rolloutWithout(id string) {
	old := c.rollout()
	if old == nil || old.Step.Over() {
		return
	}
	r := *old
	if r.Turn == id {
		r.Turn = ""
	}
	c.rolloutGoesOn(&r, slices.DeleteFunc(c.onNodes(), func(x machine.Replica) bool { return x.ID == id }))
}

func (c *change) rolloutStop(x RolloutStop) error {
	r, err := c.rolling(x.ID)
	if err != nil {
		return err
	}
	r.Step, r.Reason = machine.RolloutStopped, clip(x.Reason)
	text := "The rollout is stopped: " + r.Reason
	if old := c.replica(r.Turn); old != nil && old.InService() {
		now := *old
		back := now.Image // it does not run the new one yet
		if back == r.Image && now.FallBack != nil {
			back = now.FallBack.Image
		}
		now.Ordered = back
		c.put(tableReplicas, &now)
		text += fmt.Sprintf("; replica %s is told its earlier image", now.Name)
	}
	c.put(tableRollout, r)
	c.event("", "rollout.stopped", machine.Warning, text, "rollout", r.ID, "replica", r.Turn, "image", r.Image, "by", c.by)
	return nil
}

func (c *change) rolloutKeep() error {
	if r := c.rollout(); r != nil && !r.Step.Over() {
		return refuse("a rollout is under way: its replicas may have to go back; wait for its end")
	}
	kept := 0
	for _, now := range c.onNodes() {
		if now.Ordered != now.Image {
			return refuse("replica %s is told to run image %.19s…, and does not yet, or not any more: wait until it does, or take it away (rackseed handoff remove %s)", now.Name, now.Ordered, now.Name)
		}
	}
	for _, now := range c.onNodes() {
		if now.FallBack != nil {
			now.FallBack = nil
			c.put(tableReplicas, &now)
			kept++
		}
	}
	if kept == 0 {
		return refuse("no replica has an earlier image that it could go back to")
	}
	c.event("", "rollout.kept", machine.Info, fmt.Sprintf("No replica goes back to an earlier image, as %s decided", asker(c.by)), "by", c.by)
	return nil
}

// Supported is the highest feature level that every replica in service supports,
// also if it goes back to what it ran before; 0: there is no replica.
func (v View) Supported() uint64 { return v.t.supported() }

func (t tables) supported() (level uint64) {
	each(t, tableReplicas, byID, nil, func(r *machine.Replica) bool {
		if !r.InService() {
			return true
		}
		if level == 0 {
			level = r.Supports()
		}
		level = min(level, r.Supports())
		return true
	})
	return level
}

// tooNew says that this binary cannot follow the cluster.
func tooNew(level, own uint64) error {
	return fmt.Errorf("the cluster is at feature level %d and this binary supports %d: install a newer release", level, own)
}

func (c *change) featureRaise(x FeatureRaise) error {
	row := c.cluster()
	if r := c.rollout(); r != nil && !r.Step.Over() {
		return refuse("a rollout is under way: its replicas may have to go back")
	}
	switch most := c.supported(); {
	case x.Level <= row.FeatureLevel:
		return refuse("the feature level is %d, and never falls", row.FeatureLevel)
	case x.Level > most:
		return refuse("feature level %d: a replica, or what it would go back to, supports %d only", x.Level, most)
	}
	row.FeatureLevel, c.raised = x.Level, x.Level
	c.put(tableCluster, &row)
	c.event("", "feature.raised", machine.Info, fmt.Sprintf("The cluster's feature level is %d: every replica supports it", x.Level), "level", fmt.Sprint(x.Level))
	return nil
}
