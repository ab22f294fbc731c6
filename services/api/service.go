package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/registry"
	"github.com/rackseed/rackseed/services/rollout"
	"github.com/rackseed/rackseed/services/state"
)

// Service is which releases of the boot service run, and the newest rollout.
type Service struct {
	Replicas  []ServiceReplica `json:"replicas" doc:"The replicas, by name."`
	Published string           `json:"published,omitempty" doc:"Digest of the boot service's own published image."`
	// Level is what all replicas may write now, Supports what they could.
	Level    uint64 `json:"featureLevel" doc:"The cluster's feature level: it rises once every replica, and the image it would go back to, supports it."`
	Supports uint64 `json:"supports" doc:"The level that all of them support."`
	// Ready is whether the published image could be rolled out now, and Reason why not.
	Ready  bool   `json:"ready" doc:"Another image is published than one of the replicas on nodes runs, and can be rolled out now."`
	Reason string `json:"reason,omitempty" doc:"Why it cannot."`
	Alone  bool   `json:"alone" doc:"One replica alone carries the boot service: while it is restarted, no machine is served, for about a minute."`
	// Plan is absent where there was none yet.
	Plan *RolloutPlan `json:"plan,omitempty"`
}

// ServiceReplica is what a replica runs.
type ServiceReplica struct {
	ID      string     `json:"id"`
	Name    string     `json:"name" doc:"The node's name, or appliance."`
	Machine machine.ID `json:"machine,omitempty" doc:"The node it runs on; absent: the appliance."`
	Release string     `json:"release"`
	Image   string     `json:"image,omitempty" doc:"Digest of the image that it runs; absent: it runs from none, as the appliance does."`
	Ordered string     `json:"ordered,omitempty" doc:"Digest of the image that its node is told to run, where that is another one."`
	Level   uint64     `json:"featureLevel" doc:"The highest feature level that it supports."`
	Back    string     `json:"fallBack,omitempty" doc:"The release that it would go back to."`
	Leads   bool       `json:"leads"`
	Voter   bool       `json:"voter" doc:"It counts in majorities."`
	Newest  bool       `json:"newest" doc:"It runs the published image."`
}

// RolloutPlan is a rollout and how far it is.
type RolloutPlan struct {
	ID     string              `json:"id"`
	Step   machine.RolloutStep `json:"step" enum:"rolling,done,stopped"`
	Over   bool                `json:"over"`
	Text   string              `json:"text" doc:"The step in words."`
	Image  string              `json:"image" doc:"Digest of what all shall run."`
	By     string              `json:"by"`
	Since  time.Time           `json:"since"`
	Within string              `json:"within" doc:"How long a replica has to be back, as Go writes durations."`
	Turn   string              `json:"turn,omitempty" doc:"Name of the replica that was told to run it and is not done."`
	Done   []string            `json:"done" doc:"Names of those that run it and took part in a commit since."`
	Reason string              `json:"reason,omitempty" doc:"Why it was stopped."`
	Known  bool                `json:"known" doc:"This replica leads and looked: gates, doing and failed are known."`
	Doing  string              `json:"doing,omitempty" doc:"What is done now."`
	Failed string              `json:"failed,omitempty" doc:"What failed last, and why; it is tried again."`
	Gates  []HandoffGate       `json:"gates" doc:"What must hold before it goes on."`
}

// UpgradeRequest starts a rollout.
type UpgradeRequest struct {
	Image  string `json:"image,omitempty" maxLength:"128" doc:"Name of the published image, as lab/service:v2; absent: rackseed/service:latest."`
	Within string `json:"within,omitempty" maxLength:"16" doc:"How long a replica has to be back with it, as 10m; absent: 5m, and more for emulated machines."`
}

// ServiceOf is the boot service as a replica sees it. What a loop said of another
// rollout, or before its replica lost the lead, is not true any more.
func ServiceOf(v state.View, m state.Membership, s rollout.Status) Service {
	cluster, _ := v.Cluster()
	out := Service{Replicas: []ServiceReplica{}, Level: cluster.FeatureLevel, Supports: v.Supported(), Alone: len(m.Voters()) == 1}
	if i, ok := v.Image(state.ServiceRef); ok {
		out.Published = i.Digest
	}
	names := map[string]string{}
	for _, r := range v.Replicas() {
		names[r.ID] = r.Name
		x := ServiceReplica{
			ID: r.ID, Name: r.Name, Machine: r.Machine, Release: r.Release, Image: r.Image, Level: r.Level,
			Leads: m.Leader == r.ID, Voter: m.Voter(r.ID), Newest: r.Image != "" && r.Image == out.Published,
		}
		if r.Ordered != r.Image {
			x.Ordered = r.Ordered
		}
		if r.FallBack != nil {
			x.Back = r.FallBack.Release
		}
		out.Replicas = append(out.Replicas, x)
	}
	slices.SortFunc(out.Replicas, func(a, b ServiceReplica) int { return strings.Compare(a.Name+a.ID, b.Name+b.ID) })
	if p, ok := v.Rollout(); ok {
		plan := &RolloutPlan{
			ID: p.ID, Step: p.Step, Over: p.Step.Over(), Text: p.Words(), Image: p.Image, By: p.By, Since: p.Since, Within: time.Duration(p.Within).String(),
			Turn: names[p.Turn], Done: []string{}, Reason: p.Reason, Gates: []HandoffGate{},
		}
		for _, id := range p.Done {
			if name := names[id]; name != "" { // it may have left
				plan.Done = append(plan.Done, name)
			}
		}
		if !plan.Over && m.Leads && s.Rollout.ID == p.ID && s.Rollout.Turn == p.Turn {
			plan.Known, plan.Doing, plan.Failed = true, s.Doing, s.Failed
			for _, g := range s.Gates {
				plan.Gates = append(plan.Gates, HandoffGate(g))
			}
		}
		out.Plan = plan
	}
	_, err := rollout.Plan(v, m, "next", "", "", 0)
	if out.Ready = err == nil; err != nil {
		out.Reason = err.Error()
	}
	return out
}

func (s *Server) service() Service {
	var m state.Membership
	var now rollout.Status
	if s.Members != nil {
		m = s.Members.Membership()
	}
	if s.RolloutStatus != nil {
		now = s.RolloutStatus()
	}
	return ServiceOf(s.Store.View(), m, now)
}

func (s *Server) registerService(api huma.API) {
	answer := func() *body[Service] { return &body[Service]{s.service()} }
	huma.Register(api, operation("service", http.MethodGet, "/api/service", "service", "Which releases of the boot service run, and how far the rollout of another one is"),
		func(context.Context, *struct{}) (*body[Service], error) { return answer(), nil })
	huma.Register(api, operation("service-upgrade", http.MethodPost, "/api/service/upgrade", "service",
		"Have the replicas on nodes run another image, one after another", http.StatusConflict),
		func(ctx context.Context, in *struct{ Body *UpgradeRequest }) (*body[Service], error) {
			var ref string
			var within time.Duration
			if in.Body != nil && in.Body.Within != "" {
				var err error
				if within, err = time.ParseDuration(in.Body.Within); err != nil || within <= 0 {
					return nil, huma.Error422UnprocessableEntity(fmt.Sprintf("within: %q: a duration is expected, as 10m", in.Body.Within))
				}
			}
			if in.Body != nil && in.Body.Image != "" {
				if ref = registry.Ref(in.Body.Image); ref == "" {
					return nil, huma.Error409Conflict(fmt.Sprintf("image %s is not published; images are listed with: rackseed image list", in.Body.Image))
				}
			}
			var m state.Membership
			if s.Members != nil {
				m = s.Members.Membership()
			}
			plan, err := rollout.Plan(s.Store.View(), m, peer.NewID("o-"), asker(ctx).by(), ref, within)
			if err != nil {
				return nil, s.problem(ctx, err)
			}
			if _, err := s.propose(ctx, state.RolloutStart{Rollout: plan}); err != nil {
				return nil, err
			}
			return answer(), nil
		})
	huma.Register(api, operation("service-stop", http.MethodPost, "/api/service/stop", "service",
		"Stop a rollout: the replica whose turn it is goes back to its earlier image, the others stay as they are", http.StatusConflict),
		func(ctx context.Context, _ *struct{}) (*body[Service], error) {
			p, ok := s.Store.View().Rollout()
			if !ok || p.Step.Over() {
				return nil, huma.Error409Conflict("no rollout is under way")
			}
			if _, err := s.propose(ctx, state.RolloutStop{ID: p.ID, Reason: "an operator stopped it"}); err != nil {
				return nil, err
			}
			return answer(), nil
		})
	huma.Register(api, operation("service-keep", http.MethodPost, "/api/service/keep", "service",
		"Give the earlier images up, so that the feature level may rise: no replica goes back any more", http.StatusConflict),
		func(ctx context.Context, _ *struct{}) (*body[Service], error) {
			if _, err := s.propose(ctx, state.RolloutKeep{}); err != nil {
				return nil, err
			}
			return answer(), nil
		})
}
