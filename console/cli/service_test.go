package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

func TestService(t *testing.T) {
	r := newMovingRig(t)
	r.fails("nothing can be rolled out: no replica of the boot service runs on a node", "", "service", "upgrade", "--yes")
	r.alpha()
	digest := func(c string) string { return "sha256:" + strings.Repeat(c, 64) }
	token := bytes.Repeat([]byte{7}, 32)
	r.Must(state.ReplicaInvite{TokenHash: token, Name: "alpha", Machine: "m-00000001", Expires: time.Now().Add(time.Minute)})
	join := state.ReplicaJoin{TokenHash: token, ID: "r-2", Endpoint: "192.0.2.10:8300", Key: bytes.Repeat([]byte{2}, 32), Release: "v1", Level: 1, Image: digest("a")}
	r.Must(join)
	r.Must(state.ImagePublish{Images: []machine.Image{{Ref: "service", Digest: digest("b")}}})
	r.prints(`
REPLICA           RELEASE  IMAGE         LEVEL  GOES BACK TO
alpha             v1       aaaaaaaaaaaa  1      -
appliance, leads  v1       -             1      -

Published      bbbbbbbbbbbb
Feature level  1; all support 1
Possible       rackseed service upgrade: another image is published
`, "service")
	// Elsewhere than at a terminal nothing is asked, and nothing done.
	r.fails("say --yes if that is meant", "yes\n", "service", "upgrade")
	shown, err := r.types("yes\n", "service", "upgrade", "--no-wait", "--within", "90s")
	if err != nil || !strings.Contains(shown, "the boot service is away for about a minute") {
		t.Fatalf("answered yes: %v\n%s", err, shown)
	}
	p, _ := r.View().Rollout()
	if time.Duration(p.Within) != 90*time.Second {
		t.Errorf("%+v", p)
	}
	r.Must(state.RolloutTell{ID: p.ID, Replica: "r-2"})
	r.prints(`
REPLICA           RELEASE  IMAGE         LEVEL  GOES BACK TO
alpha             v1       aaaaaaaaaaaa  1      -
appliance, leads  v1       -             1      -

Published      bbbbbbbbbbbb
Feature level  1; all support 1
Upgrade        to bbbbbbbbbbbb, started by ann NOW
Step           rolling: one replica after another runs the new image, the one that leads last
Turn           alpha
Waits for      not known here yet: the replica that leads says it, at the service address
Possible       rackseed service stop
`, "service", "status")
	r.fails("a rollout is under way", "", "service", "upgrade", "--yes")
	r.must("", "service", "stop")
	r.fails("no rollout is under way", "", "service", "stop")
	if out := r.must("", "service"); !strings.Contains(out, "tries the image again whose upgrade was stopped") {
		t.Errorf("what was stopped is offered as another image: %s", out)
	}
	if shown, err := r.types("no\n", "service", "upgrade"); err == nil || !strings.Contains(shown, "This is the image whose upgrade was stopped: an operator stopped it.") {
		t.Errorf("again: %v\n%s", err, shown)
	}
	r.fails("no replica has an earlier image", "", "service", "keep", "--yes")

	// One that is followed to its end.
	go func() {
		for {
			view := r.View()
			p, _ := view.Rollout()
			if !p.Step.Over() {
				r.Must(state.RolloutTell{ID: p.ID, Replica: "r-2"})
				r.Must(state.ReplicaTell{ID: "r-2", Name: "alpha", Machine: "m-00000001", Endpoint: join.Endpoint, Key: join.Key, Release: "v2", Level: 1, Image: digest("b")})
				r.Must(state.RolloutDid{ID: p.ID, Replica: "r-2"})
				return
			}
			<-view.Changed("rollout")
		}
	}()
	if out := r.must("", "service", "upgrade", "--yes"); !strings.Contains(out, "done: every replica on a node runs the new image") {
		t.Errorf("followed: %s", out)
	}
	r.must("", "service", "keep", "--yes")
}
