package agent

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/services/identity"
	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/wire"
)

func TestJudgeChange(t *testing.T) {
	for name, c := range map[string]struct {
		age, silence time.Duration
		answers      bool
		want         verdict
	}{
		"answered by what ran before":       {time.Second, 0, true, changeWaits},
		"answered long after":               {changeSettles, 0, true, changeGood},
		"silent while it starts":            {time.Minute, time.Minute, false, changeWaits},
		"silent since":                      {changeSilence, changeSilence, false, changeRefused},
		"silent since before":               {time.Minute, time.Hour, false, changeWaits},
		"silent, and was heard in between":  {time.Hour, time.Minute, false, changeWaits},
		"answered after a very long outage": {time.Hour, 0, true, changeGood},
	} {
		if got := judgeChange(c.age, c.silence, c.answers); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// The image is in the node's store before the replica is ended, and one that does
// not come to answer is undone, and not tried again.
func TestReplicaIsChanged(t *testing.T) {
	t.Parallel()
	const old, image = "rackseed.local/rackseed/service@sha256:00", "rackseed.local/rackseed/service@sha256:11"
	n := newNode(t)
	// What is in the store is a file; "pull" fails while one says so.
	n.program("ctr", `shift 2; echo "$@" >> "$ROOT/ctr"
case "$1 $2" in
"images check") [ ! -e "$ROOT/store" ] || echo '`+image+`' ;;
"images pull") [ ! -e "$ROOT/broken" ] || { echo "no route to host"; exit 1; }; touch "$ROOT/store" ;;
esac`)
	a, err := newAgent(n.root, quiet())
	if err != nil {
		t.Fatal(err)
	}
	a.commands.path, a.commands.env = filepath.Join(n.root, "bin")+":/usr/bin:/bin", []string{"ROOT=" + n.root}
	before, err := config.Service{Image: old, Endpoint: "10.77.0.11:8300"}.Pod()
	if err != nil {
		t.Fatal(err)
	}
	n.write(config.ServiceManifest, string(before))
	if _, err := identity.Found(n.root+config.ServiceFolder+"/identity", keyring.NewKey()); err != nil {
		t.Fatal(err)
	}
	heard := time.Now()
	tend := func() error { return a.tendReplica(t.Context(), &heard) }
	runs := func(want string) {
		t.Helper()
		if got := config.PodImage([]byte(n.read(config.ServiceManifest))); got != want {
			t.Errorf("it runs %s, want %s", got, want)
		}
	}
	there := func(p string) bool { _, err := os.Stat(n.root + p); return !errors.Is(err, fs.ErrNotExist) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	n.s.replica = wire.ReplicaOrder{Run: true, Joined: true, Image: image} // published, and nobody's turn
	must(tend())
	runs(old)
	n.s.replica = wire.ReplicaOrder{Run: true, Joined: true, Change: true, Image: "docker.io/evil@sha256:11"}
	if err := tend(); err == nil || !strings.Contains(err.Error(), "is not from rackseed.local") {
		t.Errorf("an image from elsewhere: %v", err)
	}
	n.s.replica.Image = image
	n.write("broken", "")
	if err := tend(); err == nil || !strings.Contains(err.Error(), "no route to host") {
		t.Errorf("an image that cannot be pulled: %v", err)
	}
	runs(old)
	must(os.Remove(n.root + "/broken"))
	must(tend())
	runs(image)
	if text := n.read("ctr"); !strings.Contains(text, "images pull --hosts-dir /etc/containerd/certs.d "+image) {
		t.Errorf("ctr %s", text)
	}
	must(tend()) // what ran before may still answer
	if !there(config.ServiceBefore) {
		t.Fatal("what ran before is forgotten at once")
	}

	// Nobody answers for long.
	long := time.Now().Add(-2 * changeSilence)
	must(os.Chtimes(n.root+config.ServiceBefore, long, long))
	heard = long
	n.s.refuse[wire.PathNodeReplica] = []int{http.StatusServiceUnavailable}
	if err := tend(); err == nil {
		t.Error("no answer is no error")
	}
	runs(old)
	must(tend()) // it is ordered still
	runs(old)
	n.s.replica.Image = old // it was stopped
	must(tend())
	n.s.replica.Image = image // and is begun again
	must(tend())
	runs(image)
	must(os.Chtimes(n.root+config.ServiceBefore, long, long))
	must(tend())
	if there(config.ServiceBefore) {
		t.Error("what ran before is kept though its successor answers")
	}
}

// The power goes after a change was undone, and before that is on the disk: what runs is
// not taken for what was refused.
func TestUndoneTwice(t *testing.T) {
	n := newNode(t)
	a := newTestAgent(t, n)
	manifest, err := config.Service{Image: "rackseed.local/rackseed/service@sha256:00", Endpoint: "10.77.0.11:8300"}.Pod()
	if err != nil {
		t.Fatal(err)
	}
	n.write(config.ServiceBefore, string(manifest))
	n.write(config.ServiceManifest, string(manifest))
	if err := a.undoChange(a.host.path(config.ServiceBefore)); err != nil {
		t.Fatal(err)
	}
	if a.host.exists(config.ServiceRefused) || a.host.exists(config.ServiceBefore) {
		t.Error("what runs is refused")
	}
}
