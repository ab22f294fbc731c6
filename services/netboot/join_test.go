package netboot

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

// startedLab is a cluster that node-1 started, and the node keys of the further
// control planes node-2 and node-3 and of the worker node-4.
func startedLab(t *testing.T) (*lab, map[string]ed25519.PrivateKey) {
	t.Helper()
	l := newLab(t).serve(t)
	nodes := map[string]ed25519.PrivateKey{}
	l.server.JoinSecret = func(context.Context, state.View, machine.Machine, machine.Intent) (wire.JoinSecret, error) {
		t.Error("a token was made for a cluster that is not started")
		return wire.JoinSecret{}, nil
	}
	for i, name := range []string{"node-1", "node-2", "node-3", "node-4"} {
		role := machine.RoleControlPlane
		if name == "node-4" {
			role = machine.RoleWorker
		}
		nodes[name] = l.approve(t, l.session(t, l.keys(t), machine.MAC("52:54:00:00:00:0"+string(rune('1'+i)))), name, role)
	}
	l.want(t, 409, "not started yet", nodes["node-4"], "POST", wire.PathNodeJoin, l.joinRequest(t, l.keys(t)))
	l.want(t, 200, `"init"`, nodes["node-1"], "GET", wire.PathNodeOrder, nil)
	l.tell(t, nodes["node-1"], 1, wire.NodeJoined)
	return l, nodes
}

func (l *lab) joinRequest(t *testing.T, k keys) wire.JoinRequest {
	t.Helper()
	return wire.JoinRequest{SealKey: k.seal.PublicKey().Bytes()}
}

func (l *lab) tell(t *testing.T, node ed25519.PrivateKey, number uint64, event wire.NodeEvent) {
	t.Helper()
	l.want(t, 204, "", node, "POST", wire.PathNodeReport, wire.NodeReport{BootID: boot1, Number: number, Event: event})
}

// tokens is a plugin that makes one token after another.
func tokens(made *[]string) func(context.Context, state.View, machine.Machine, machine.Intent) (wire.JoinSecret, error) {
	return func(_ context.Context, _ state.View, m machine.Machine, i machine.Intent) (wire.JoinSecret, error) {
		token := "abcdef." + strings.Repeat(string(rune('a'+len(*made))), 16)
		*made = append(*made, token)
		return wire.JoinSecret{Intent: i.ID, Epoch: i.Epoch, Token: token, CACertHashes: []string{"sha256:00"}, Endpoint: "10.77.0.1:6443"}, nil
	}
}

// TestJoinStory: what nodes join by is made one attempt at a time, for them
// alone, and is told without being shown.
func TestJoinStory(t *testing.T) {
	l, nodes := startedLab(t)
	var made []string
	var log bytes.Buffer
	l.server.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	l.server.JoinSecret = tokens(&made)
	worker, second, third := nodes["node-4"], nodes["node-2"], nodes["node-3"]

	l.want(t, 200, `"join"`, worker, "GET", wire.PathNodeOrder, nil)
	for attempt := range 2 { // the first answer was lost
		k := l.keys(t)
		var sealed wire.Sealed
		a := l.want(t, 200, "ciphertext", worker, "POST", wire.PathNodeJoin, l.joinRequest(t, k))
		a.decode(t, &sealed)
		m, _ := l.store.View().MachineByNodeKey(worker.Public().(ed25519.PublicKey))
		b, err := wire.Open(k.seal, wire.JoinPurpose(string(m.ID)), sealed)
		if err != nil {
			t.Fatal(err)
		}
		var got wire.JoinSecret
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		intent := l.store.View().JoinIntent(m.ID)
		if got.Token != made[attempt] || got.Intent != intent.ID || got.Epoch != uint64(attempt+1) || got.Epoch != intent.Epoch {
			t.Errorf("attempt %d got %+v under %+v", attempt, got, intent)
		}
	}
	// Control planes wait for each other, not for workers.
	l.want(t, 200, `"join"`, second, "GET", wire.PathNodeOrder, nil)
	l.want(t, 200, "", second, "POST", wire.PathNodeJoin, l.joinRequest(t, l.keys(t)))
	l.want(t, 200, "one at a time: waiting for node-2", third, "GET", wire.PathNodeOrder, nil)
	l.want(t, 409, "node-2 is joining", third, "POST", wire.PathNodeJoin, l.joinRequest(t, l.keys(t)))
	l.tell(t, second, 1, wire.NodeFailed)
	l.want(t, 200, `"join"`, third, "GET", wire.PathNodeOrder, nil)

	told, err := json.Marshal(l.store.View().Events(0, "", 0))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(told), "A token was made by which node-4 joins"); n != 2 {
		t.Errorf("it was told %d times", n)
	}
	for _, token := range made {
		_, secret, _ := strings.Cut(token, ".")
		if strings.Contains(string(told), secret) || strings.Contains(log.String(), secret) {
			t.Errorf("the token %s was told", token)
		}
	}
}

func TestJoinRefused(t *testing.T) {
	l, nodes := startedLab(t)
	worker := nodes["node-4"]
	k := l.keys(t)
	l.server.JoinSecret = nil
	l.want(t, 503, "without Kubernetes", worker, "POST", wire.PathNodeJoin, l.joinRequest(t, k))
	l.server.JoinSecret = tokens(new([]string))
	l.want(t, 400, "sealing key", worker, "POST", wire.PathNodeJoin, wire.JoinRequest{SealKey: []byte("short")})
	l.want(t, 403, "no machine's", k.sign, "POST", wire.PathNodeJoin, l.joinRequest(t, k))

	// The API server is down: the claim stays, and it is asked for again.
	m, _ := l.store.View().MachineByNodeKey(worker.Public().(ed25519.PublicKey))
	l.server.JoinSecret = func(context.Context, state.View, machine.Machine, machine.Intent) (wire.JoinSecret, error) {
		return wire.JoinSecret{}, errors.New("API server 10.77.0.11:6443: connection refused")
	}
	a := l.want(t, 503, "connection refused", worker, "POST", wire.PathNodeJoin, l.joinRequest(t, k))
	if a.header.Get("Retry-After") == "" || l.store.View().JoinIntent(m.ID).Status != machine.IntentClaimed {
		t.Errorf("Retry-After %q, join intent %+v", a.header.Get("Retry-After"), l.store.View().JoinIntent(m.ID))
	}
	if kinds := l.kinds(m.ID); slices.Contains(kinds, "join.token") {
		t.Errorf("a token that was not made is told: %v", kinds)
	}

	// Asked for once more, or revoked, while the token was made. A revoked one
	// is not granted again.
	var made []string
	make := tokens(&made)
	for _, c := range []struct {
		what      string
		meanwhile state.Command
	}{
		{"once more", state.JoinClaim{Machine: m.ID, Intent: "j-other"}},
		{"revoked", state.IntentRevoke{Intent: l.store.View().JoinIntent(m.ID).ID, Reason: "wrong rack"}},
	} {
		l.server.JoinSecret = func(ctx context.Context, v state.View, m machine.Machine, i machine.Intent) (wire.JoinSecret, error) {
			l.propose(t, c.meanwhile)
			return make(ctx, v, m, i)
		}
		if a := l.want(t, 409, "changed meanwhile", worker, "POST", wire.PathNodeJoin, l.joinRequest(t, k)); strings.Contains(a.body, "ciphertext") {
			t.Errorf("%s: %s", c.what, a.body)
		}
	}
}
