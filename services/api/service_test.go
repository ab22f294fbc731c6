package api

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

func TestServiceIsUpgraded(t *testing.T) {
	r := newMovingRig(t)
	auth := bearer(siteToken)
	get := func() Service {
		t.Helper()
		return decode[Service](t, r.want(200, "GET", "/api/service", "", auth).body)
	}
	refused := func(action, body, want string) {
		t.Helper()
		if a := r.want(409, "POST", "/api/service/"+action, body, auth); !strings.Contains(a.detail(), want) {
			t.Errorf("%s %s: %q, want %q", action, body, a.detail(), want)
		}
	}
	digest := func(c string) string { return "sha256:" + strings.Repeat(c, 64) }

	s := get()
	if s.Ready || !strings.Contains(s.Reason, "no replica of the boot service runs on a node: a newer stick renews the appliance") || s.Plan != nil || s.Level != 1 || s.Supports != 1 || !s.Alone {
		t.Errorf("on the appliance: %+v", s)
	}
	refused("upgrade", "", "a newer stick renews the appliance")
	refused("stop", "", "no rollout is under way")
	refused("keep", "", "no replica has an earlier image")

	alpha := r.node(1, "alpha")
	token := sha256.Sum256([]byte("alpha"))
	r.Must(state.ReplicaInvite{TokenHash: token[:], Name: "alpha", Machine: alpha, Expires: time.Now().Add(time.Minute)})
	join := state.ReplicaJoin{TokenHash: token[:], ID: "r-2", Endpoint: "192.0.2.10:8300", Key: bytes.Repeat([]byte{2}, 32), Release: "v1", Level: 1, Image: digest("a")}
	r.Must(join)
	refused("upgrade", "", "the boot service's own image is not published: push it first")
	r.Must(state.ImagePublish{Images: []machine.Image{{Ref: "service", Digest: digest("a")}, {Ref: "lab/service:v2", Digest: digest("b")}}})
	if s := get(); s.Ready || s.Reason != "every replica on a node runs it already" || !s.Replicas[0].Newest {
		t.Errorf("nothing newer: %+v", s)
	}
	refused("upgrade", `{"image":"rackseed/node:v2"}`, "is not published")
	refused("upgrade", `{"image":"lab/nothing"}`, "lab/nothing:latest is not published")
	r.want(422, "POST", "/api/service/upgrade", `{"within":"soon"}`, auth)
	s = decode[Service](t, r.want(200, "POST", "/api/service/upgrade", `{"image":"lab/service:v2","within":"90s"}`, auth).body)
	if p := s.Plan; p == nil || p.Step != machine.RolloutRolling || p.Image != digest("b") || p.Within != "1m30s" || p.By != "operator:ann" || p.Over || p.Known {
		t.Fatalf("started: %+v", p)
	}
	refused("upgrade", "", "a rollout is under way")
	r.Must(state.RolloutTell{ID: s.Plan.ID, Replica: "r-2"})
	if s := get(); s.Plan.Turn != "alpha" || s.Replicas[0].Ordered != digest("b") {
		t.Errorf("told: %+v", s)
	}
	s = decode[Service](t, r.want(200, "POST", "/api/service/stop", "", auth).body)
	if s.Plan.Step != machine.RolloutStopped || s.Plan.Reason != "an operator stopped it" || s.Replicas[0].Ordered != "" {
		t.Errorf("stopped: %+v", s)
	}

	// Another one, which comes to its end.
	r.Must(state.ImagePublish{Images: []machine.Image{{Ref: "service", Digest: digest("b")}}})
	if s := get(); !s.Ready || s.Reason != "" {
		t.Errorf("a newer one is published: %+v", s)
	}
	s = decode[Service](t, r.want(200, "POST", "/api/service/upgrade", "", auth).body)
	r.Must(state.RolloutTell{ID: s.Plan.ID, Replica: "r-2"})
	r.Must(state.ReplicaTell{ID: "r-2", Name: "alpha", Machine: alpha, Endpoint: join.Endpoint, Key: join.Key, Release: "v2", Level: 1, Image: digest("b")})
	r.Must(state.RolloutDid{ID: s.Plan.ID, Replica: "r-2"})
	if s := get(); s.Plan.Step != machine.RolloutDone || len(s.Plan.Done) != 1 || s.Plan.Done[0] != "alpha" || s.Replicas[0].Back != "v1" || s.Replicas[0].Release != "v2" {
		t.Errorf("done: %+v", s)
	}
	if s := decode[Service](t, r.want(200, "POST", "/api/service/keep", "", auth).body); s.Replicas[0].Back != "" {
		t.Errorf("kept: %+v", s)
	}
}
