package join

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// Between attempts of what the cluster did not take.
const (
	retryFirst = 2 * time.Second
	retryMost  = time.Minute
)

// chore is what a join that is over leaves to do.
type chore struct {
	machine machine.ID
	node    string
	join    *machine.Intent   // not nil: the join that is over, whose tokens are taken back
	gone    bool              // the machine is forgotten: all its tokens are taken back
	labels  map[string]string // to put on the node
	key     string            // tells this chore from a later one of the same machine
}

// over says whether a token is one that the chore takes back: none that was
// made for a later attempt.
func (c chore) over(t tokenOf) bool {
	return t.machine == c.machine && (c.gone || c.join != nil && (t.intent != c.join.ID || t.epoch <= c.join.Epoch))
}

// note has each machine that joins or did in settled, so that it is missed when
// it is forgotten.
func note(v View, settled map[machine.ID]string) {
	for _, m := range v.Machines() {
		if _, noted := settled[m.ID]; !noted && v.JoinIntent(m.ID) != nil {
			settled[m.ID] = ""
		}
	}
}

// due are the chores that are not settled; settled has the key of each
// machine's last one, "" for one that had none yet.
func due(v View, settled map[machine.ID]string) (list []chore) {
	known := map[machine.ID]bool{}
	for _, m := range v.Machines() {
		known[m.ID] = true
		c := chore{machine: m.ID, node: m.Name}
		if j := v.JoinIntent(m.ID); j != nil && j.Status != machine.IntentClaimed {
			c.join = j
			c.key = fmt.Sprintf("%s %d %s", j.ID, j.Epoch, j.Status)
		}
		if p, ok := v.Profile(m.ID); ok && inCluster(v, m.ID) {
			if c.labels = config.RestrictedLabels(p.Labels); len(c.labels) > 0 {
				c.key += " labels"
			}
		}
		if c.key != "" && settled[m.ID] != c.key {
			list = append(list, c)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(settled)) {
		if !known[id] {
			list = append(list, chore{machine: id, gone: true})
		}
	}
	return list
}

// Follow does, as joins end, what they leave to do, until ctx ends. What the
// cluster does not take is tried again; tell is called with how it stands.
func (c *Cluster) Follow(ctx context.Context, view func() state.View, tell func(ok bool, text string)) error {
	return follow(ctx, func() (View, <-chan struct{}) {
		v := view()
		return v, v.Changed("machines", "intents")
	}, c.settle, tell)
}

func follow(ctx context.Context, view func() (View, <-chan struct{}), settle func(context.Context, View, []chore) (map[machine.ID]error, error), tell func(bool, string)) error {
	const idle = "tokens are taken back as machines have joined"
	tell(true, idle)
	settled := map[machine.ID]string{}
	wait := retryFirst
	for ctx.Err() == nil {
		v, changed := view()
		note(v, settled)
		var again <-chan time.Time
		if list := due(v, settled); len(list) > 0 {
			unsettled, err := settle(ctx, v, list)
			for _, c := range list {
				switch {
				case err != nil || unsettled[c.machine] != nil:
				case c.gone:
					delete(settled, c.machine)
				default:
					settled[c.machine] = c.key
				}
			}
			for _, e := range unsettled {
				err = errors.Join(err, e)
			}
			if err != nil {
				tell(false, fmt.Sprintf("%v; it is tried again", err))
				again = time.After(wait)
				wait = min(2*wait, retryMost)
			} else {
				tell(true, idle)
				wait = retryFirst
			}
		}
		if again != nil { // a flood of changes is no reason to ask more often
			changed = nil
		}
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
		}
	}
	return nil
}

// settle does chores. An error is the cluster's, which took none of them.
func (c *Cluster) settle(ctx context.Context, v View, list []chore) (unsettled map[machine.ID]error, err error) {
	unsettled = map[machine.ID]error{}
	err = c.visit(ctx, v, func(ctx context.Context, client rest.Interface) error {
		clear(unsettled)
		over := func(of tokenOf) bool {
			return slices.ContainsFunc(list, func(c chore) bool { return c.over(of) })
		}
		if err := remove(ctx, client, over); err != nil {
			return err
		}
		for _, chore := range list {
			if err := label(ctx, client, chore.node, chore.labels); err != nil {
				unsettled[chore.machine] = err
			}
		}
		return nil
	})
	return unsettled, err
}

// label puts labels on a node.
func label(ctx context.Context, client rest.Interface, node string, labels map[string]string) error {
	if len(labels) == 0 {
		return nil
	}
	b, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels}})
	if err != nil {
		return err
	}
	if err := client.Patch(types.MergePatchType).Resource("nodes").Name(node).Body(b).Do(ctx).Error(); err != nil {
		return fmt.Errorf("labels of node %s: %w", node, err)
	}
	return nil
}
