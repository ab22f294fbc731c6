package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/rackseed/rackseed/services/handoff"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/state"
)

// Handoff is the newest plan to move the boot service, and where the boot service
// runs.
type Handoff struct {
	// SafeToUnplug is true once the appliance carries nothing.
	SafeToUnplug bool      `json:"safeToUnplug" doc:"All replicas run on nodes, and no handoff is under way: the stick can be pulled."`
	Replicas     []Replica `json:"replicas" doc:"Where the boot service runs."`
	// Plan is absent where there was none yet.
	Plan *HandoffPlan `json:"plan,omitempty"`
	// Ready is whether one could be started now, and Reason why not.
	Ready   bool     `json:"ready" doc:"Whether a handoff can be started now."`
	Reason  string   `json:"reason,omitempty" doc:"Why it cannot."`
	Targets []string `json:"targets" doc:"The nodes it would move to."`
	// Rootless is whether the site file has no sshKeys.
	Rootless bool `json:"rootless" doc:"The site file has no sshKeys: nobody is root on a node, which rackseed recover and break-glass need once the boot service moved."`
	// RecoveryKey is whether there is one.
	RecoveryKey bool   `json:"recoveryKey" doc:"A recovery key was made, which opens the secrets in backups."`
	Auto        string `json:"auto,omitempty" doc:"What the handoff that the site file asks for (handoff: auto) waits for, while it was not started."`
	// Nodes and Choices are for whoever chooses the nodes.
	Nodes   []HandoffNode   `json:"nodes" doc:"Machines that may be chosen to carry the boot service, and those that cannot; the first 100."`
	Choices []HandoffChoice `json:"choices" doc:"What it means to choose 1, 2 and more nodes."`
}

// HandoffNode is a machine that may be chosen to carry the boot service, or cannot.
type HandoffNode struct {
	Name    string     `json:"name"`
	Machine machine.ID `json:"machine"`
	Why     string     `json:"why,omitempty" doc:"Why it cannot; absent: it can."`
}

// HandoffChoice is what it means to choose so many nodes.
type HandoffChoice struct {
	Nodes   int    `json:"nodes"`
	Refused bool   `json:"refused,omitempty" doc:"No handoff is started to so many."`
	Text    string `json:"text"`
}

const shownNodes = 100

// Replica is one running copy of the boot service.
type Replica struct {
	ID       string     `json:"id"`
	Name     string     `json:"name" doc:"The node's name, or appliance."`
	Machine  machine.ID `json:"machine,omitempty" doc:"The node it runs on; absent: the appliance."`
	Endpoint string     `json:"endpoint" doc:"Where the other replicas find it."`
	Release  string     `json:"release"`
	Leads    bool       `json:"leads"`
	Voter    bool       `json:"voter" doc:"It counts in majorities."`
	Member   bool       `json:"member" doc:"It gets the log."`
	Joined   time.Time  `json:"joined"`
	Secrets  string     `json:"secrets,omitempty" doc:"What protects the secrets on its disk: tpm, or plaintext, which is nothing; absent: it has none yet."`
	// What the leader saw last, while a handoff is under way; only it knows.
	Seen      bool   `json:"seen" doc:"The replica that answers leads, and looked at it."`
	Reachable bool   `json:"reachable,omitempty"`
	Behind    uint64 `json:"behind,omitempty" doc:"Log entries that it has not applied yet."`
	Missing   int64  `json:"missing,omitempty" doc:"Bytes of images that it has not fetched yet."`
}

// HandoffPlan is a plan and how far it is.
type HandoffPlan struct {
	machine.Handoff
	Step machine.HandoffStep `json:"step" enum:"preflight,deploying,catching-up,promoting,transferring,watching,sealing,done,aborting,aborted"`
	Over bool                `json:"over"`
	Text string              `json:"text" doc:"The step in words."`
	// Known is false at a replica that does not lead, and before the leader's first
	// look at a step.
	Known   bool            `json:"known" doc:"This replica leads and looked: gates, doing and failed are known."`
	Doing   string          `json:"doing,omitempty" doc:"What is done now."`
	Failed  string          `json:"failed,omitempty" doc:"What failed last, and why; it is tried again."`
	Gates   []HandoffGate   `json:"gates" doc:"What must hold before it goes on."`
	Actions []HandoffAction `json:"actions" doc:"What an operator may do to it now." enum:"abort,lost,resume"`
}

// HandoffAction is what may be done to a plan that is under way.
type HandoffAction string

// The actions, each a path below /api/handoff/.
const (
	HandoffAbort  HandoffAction = "abort"
	HandoffLost   HandoffAction = "lost"
	HandoffResume HandoffAction = "resume"
)

// handoffActions are what the state would not refuse now.
func handoffActions(h machine.Handoff, leader string) []HandoffAction {
	list := []HandoffAction{}
	if h.MayGo(machine.HandoffAborting) {
		list = append(list, HandoffAbort)
	}
	if h.Step.Over() {
		return list
	}
	// Without a leader nothing can be ordered.
	if h.From != "" && leader != "" && h.From != leader && !h.Lost {
		list = append(list, HandoffLost)
	}
	if h.Step == machine.HandoffAborting && leader != "" && h.From != leader {
		list = append(list, HandoffResume)
	}
	return list
}

// HandoffGate is one condition.
type HandoffGate struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Text string `json:"text"`
}

// HandoffRequest starts a handoff.
type HandoffRequest struct {
	Nodes []string `json:"nodes,omitempty" maxItems:"5" doc:"Names of the nodes to move to; absent: three of the control planes and workers that are Ready, or one where there are fewer."`
}

// RemoveRequest takes a replica away.
type RemoveRequest struct {
	Replica string `json:"replica" minLength:"1" maxLength:"64" doc:"Its name, as that of its node, or its ID."`
}

// HandoffOf is the handoff as a replica sees it. What a loop said of another step
// than the one that is under way, or before its replica lost the lead, is not true
// any more.
func HandoffOf(v state.View, m state.Membership, s handoff.Status) Handoff {
	h, planned := v.Handoff()
	active := planned && !h.Step.Over()
	known := active && m.Leads && s.Handoff.ID == h.ID && s.Handoff.Step == h.Step
	out := Handoff{Replicas: []Replica{}, Targets: []string{}, Nodes: []HandoffNode{}, Choices: []HandoffChoice{}, SafeToUnplug: !active}
	for _, r := range v.Replicas() {
		x := Replica{
			ID: r.ID, Name: r.Name, Machine: r.Machine, Endpoint: r.Endpoint, Release: r.Release, Joined: r.Joined, Secrets: r.Protector,
			Leads: m.Leader == r.ID, Voter: m.Voter(r.ID), Member: m.Has(r.ID),
		}
		looks := s.Others
		if active {
			looks = nil
		}
		if known {
			looks = s.Replicas
		}
		if i := slices.IndexFunc(looks, func(seen handoff.Seen) bool { return seen.ID == r.ID }); i >= 0 {
			seen := looks[i]
			x.Seen, x.Reachable, x.Missing = true, seen.Reachable, seen.MissingBytes
			if at := v.Index(); at > seen.Stored.Applied {
				x.Behind = at - seen.Stored.Applied
			}
		}
		out.SafeToUnplug = out.SafeToUnplug && r.Machine != ""
		out.Replicas = append(out.Replicas, x)
	}
	slices.SortFunc(out.Replicas, func(a, b Replica) int { return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID)) })
	out.SafeToUnplug = out.SafeToUnplug && len(out.Replicas) > 0
	if planned {
		out.Plan = &HandoffPlan{
			Handoff: h, Step: h.Step, Over: !active, Text: h.Words(), Known: known, Gates: []HandoffGate{}, Actions: handoffActions(h, m.Leader),
		}
	}
	if known {
		out.Plan.Doing, out.Plan.Failed = s.Doing, s.Failed
		for _, g := range s.Gates {
			out.Plan.Gates = append(out.Plan.Gates, HandoffGate(g))
		}
	}
	for _, c := range handoff.Candidates(v, m.Leader) {
		if len(out.Nodes) < shownNodes {
			out.Nodes = append(out.Nodes, HandoffNode{c.Machine.Name, c.Machine.ID, c.Why})
		}
	}
	there := 0
	if r, ok := v.Replica(m.Leader); ok && r.Machine != "" {
		there = len(out.Replicas)
	}
	for _, c := range handoff.Choices(there) {
		out.Choices = append(out.Choices, HandoffChoice(c))
	}
	out.RecoveryKey = v.Keyring().Recipient != ""
	site, applied := v.Site()
	out.Rootless = applied && len(site.SSHKeys) == 0
	_, out.Auto, _ = handoff.Auto(v, m.Leader)
	next, err := handoff.Plan(v, "next", m.Leader, "", nil)
	switch {
	case active:
		out.Reason = "one is under way"
	case err != nil:
		out.Reason = strings.TrimPrefix(err.Error(), "handoff: ")
	default:
		out.Ready = true
		for _, t := range next.Targets {
			out.Targets = append(out.Targets, t.Name)
		}
	}
	return out
}

// Members is what the API needs of the replicas.
type Members interface {
	Membership() state.Membership
}

func (s *Server) handoff() Handoff {
	var m state.Membership
	var now handoff.Status
	if s.Members != nil {
		m = s.Members.Membership()
	}
	if s.HandoffStatus != nil {
		now = s.HandoffStatus()
	}
	return HandoffOf(s.Store.View(), m, now)
}

func (s *Server) registerHandoff(api huma.API) {
	answer := func() *body[Handoff] { return &body[Handoff]{s.handoff()} }
	huma.Register(api, operation("handoff", http.MethodGet, "/api/handoff", "handoff", "Where the boot service runs, and how far its move into the cluster is"),
		func(context.Context, *struct{}) (*body[Handoff], error) { return answer(), nil })
	huma.Register(api, operation("handoff-start", http.MethodPost, "/api/handoff/start", "handoff",
		"Move the boot service onto nodes of the cluster", http.StatusConflict),
		func(ctx context.Context, in *struct{ Body *HandoffRequest }) (*body[Handoff], error) {
			var names []string
			if in.Body != nil {
				names = in.Body.Nodes
			}
			plan, err := handoff.Plan(s.Store.View(), peer.NewID("h-"), s.handoffLeader(), asker(ctx).by(), names)
			if err != nil {
				return nil, s.problem(ctx, err)
			}
			if _, err := s.propose(ctx, state.HandoffStart{Handoff: plan}); err != nil {
				return nil, err
			}
			return answer(), nil
		})
	huma.Register(api, operation("handoff-remove", http.MethodPost, "/api/handoff/remove", "handoff",
		"Take a replica away for good, as one whose node is dead", http.StatusConflict),
		func(ctx context.Context, in *struct{ Body RemoveRequest }) (*body[Handoff], error) {
			x, err := handoff.Removable(s.Store.View(), s.handoffLeader(), in.Body.Replica)
			if err == nil && s.RemoveReplica == nil {
				err = &state.Refusal{Text: "this boot service has no replicas"}
			}
			if err == nil {
				err = s.RemoveReplica(ctx, x.ID)
			}
			if err != nil {
				return nil, s.problem(ctx, err)
			}
			if _, err := s.propose(ctx, state.ReplicaLeave{ID: x.ID, Reason: "taken away"}); err != nil {
				return nil, err
			}
			return answer(), nil
		})
	// each registers what changes the plan that is under way.
	each := func(name HandoffAction, summary string, command func(h machine.Handoff) state.Command) {
		huma.Register(api, operation("handoff-"+string(name), http.MethodPost, "/api/handoff/"+string(name), "handoff", summary, http.StatusConflict),
			func(ctx context.Context, _ *struct{}) (*body[Handoff], error) {
				h, ok := s.Store.View().Handoff()
				if !ok || h.Step.Over() {
					return nil, huma.Error409Conflict("no handoff is under way")
				}
				if name == HandoffAbort && !h.MayGo(machine.HandoffAborting) {
					return nil, huma.Error409Conflict(fmt.Sprintf("the handoff cannot be given up any more: it is %s, and only goes on; see how far it is with: rackseed handoff status", h.Step))
				}
				if _, err := s.propose(ctx, command(h)); err != nil {
					return nil, err
				}
				return answer(), nil
			})
	}
	each(HandoffAbort, "Give the handoff up, until it is sealing: the appliance goes on alone", func(h machine.Handoff) state.Command {
		return state.HandoffMove{ID: h.ID, From: h.Step, To: machine.HandoffAborting, Reason: "an operator gave it up"}
	})
	each(HandoffLost, "Declare the appliance destroyed, once a node leads: the handoff only goes forward, and it is removed without its word", func(h machine.Handoff) state.Command {
		return state.HandoffLost{ID: h.ID}
	})
	each(HandoffResume, "Let a handoff that is being given up go forward without the appliance and the nodes that are away", func(h machine.Handoff) state.Command {
		return state.HandoffResume{ID: h.ID}
	})
}

func (s *Server) handoffLeader() string {
	if s.Members == nil {
		return ""
	}
	return s.Members.Membership().Leader
}
