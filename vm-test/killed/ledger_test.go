package killed

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
	"github.com/rackseed/rackseed/services/wire"
)

// ledger is what was seen from outside: what was asked for, what was answered,
// what was written, what was said. At the end it is compared with what the boot
// service says that it did.
type ledger struct {
	r *run

	mu        sync.Mutex
	events    []machine.Event                 // as a reader got them, who reconnects
	approvals map[string]state.MachineApprove // by intent: all that were ever asked for
	retries   map[string][]state.IntentRetry  // by intent
	dropped   bool                            // a machine was forgotten, and its output with it
	secrets   []string                        // that no answer may have in the clear
	writes    []write
	lines     map[string][]string // by boot
	sessions  map[string][]string // by the signing key; several, if the machine was forgotten meanwhile
	owners    map[string]*box     // by session
	acks      []ack
	outputs   map[string]uint64 // by stream: the next line that was acknowledged
	keys      map[string]string // by stream: the boot
	begun     int               // abandonments, as far as they were read
	inits     map[int]map[*box]bool
	answers   int
}

// write is something that a machine wrote to a disk.
type write struct {
	box   *box
	boot  string
	disk  machine.Disk // as it was before
	order wire.Order
	at    time.Time
}

// ack is what the boot service told a machine that it has.
type ack struct {
	what string
	is   func(machine.Event) bool
}

func newLedger(r *run) *ledger {
	return &ledger{
		r: r, approvals: map[string]state.MachineApprove{}, retries: map[string][]state.IntentRetry{}, lines: map[string][]string{},
		sessions: map[string][]string{}, owners: map[string]*box{}, outputs: map[string]uint64{}, keys: map[string]string{},
		inits: map[int]map[*box]bool{},
	}
}

// secret makes one that no answer may have in the clear.
func (l *ledger) secret(what string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := "SECRET " + what
	l.secrets = append(l.secrets, s, base64.StdEncoding.EncodeToString([]byte(s)))
	return s
}

// asked notes a command before it is proposed.
func (l *ledger) asked(by string, c state.Command) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch c := c.(type) {
	case state.MachineApprove:
		if by == "list" && c.Erase != "" && c.Erase != machine.BrokenOff && !slices.ContainsFunc(slices.Collect(maps.Values(l.approvals)), func(a state.MachineApprove) bool {
			return a.Machine == c.Machine && (a.Erase == c.Erase || machine.NodeDisk(a.Name) == c.Erase)
		}) {
			l.r.violated("machine %s is approved by the list to lose %s, and nobody confirmed that", c.Machine, c.Erase)
		}
		l.approvals[c.Intent] = c
		if seed, err := statetest.Keys().Open(state.NodeSecret(c.Machine), c.NodeSeed); err == nil {
			l.secrets = append(l.secrets, string(seed), base64.StdEncoding.EncodeToString(seed), hex.EncodeToString(seed))
		} else {
			l.r.violated("machine %s: its seed is not sealed: %v", c.Machine, err)
		}
	case state.IntentRetry:
		l.retries[c.Intent] = append(l.retries[c.Intent], c)
	case state.MachineForget, state.BootstrapAbandon:
		l.dropped = true
	}
}

func (l *ledger) said(boot, line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines[boot] = append(l.lines[boot], line)
}

func (l *ledger) wrote(b *box, boot string, disk machine.Disk, order wire.Order) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes = append(l.writes, write{b, boot, disk, order, time.Now()})
}

// generation counts the clusters that were given up.
func (l *ledger) generation() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begun
}

func key(r *http.Request) string {
	k, _ := base64.StdEncoding.DecodeString(r.Header.Get(wire.HeaderKey))
	return string(k)
}

// served looks at an answer as it leaves, whether it arrives or not. before is
// the generation when the request came.
func (l *ledger) served(b *box, r *http.Request, body []byte, a *httptest.ResponseRecorder, before int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers++
	for _, s := range l.secrets {
		if bytes.Contains(a.Body.Bytes(), []byte(s)) {
			l.r.violated("%s %s: the answer to %s has a secret in the clear", r.Method, r.URL.Path, b)
		}
	}
	if a.Code != http.StatusOK {
		return
	}
	switch r.URL.Path {
	case wire.PathSession:
		var reply wire.SessionReply
		if err := json.Unmarshal(a.Body.Bytes(), &reply); err != nil {
			l.r.violated("session: %v", err)
			return
		}
		if had := l.sessions[key(r)]; !slices.Contains(had, reply.Session) {
			if len(had) > 0 && !l.dropped {
				l.r.violated("%s: its key has session %s, and had %s", b, reply.Session, had)
			}
			l.sessions[key(r)] = append(had, reply.Session)
		}
		l.owners[reply.Session] = b
	case wire.PathIgnition:
		allowed := false
		for _, a := range l.approvals {
			allowed = allowed || slices.Contains(l.sessions[key(r)], a.Session)
		}
		if !allowed {
			l.r.violated("%s: session %q has an Ignition, and nobody approved it", b, l.sessions[key(r)])
		}
	case wire.PathNodeOrder:
		var o wire.NodeOrder
		if json.Unmarshal(a.Body.Bytes(), &o) == nil && o.Kind == wire.NodeInit && before == l.begun {
			if l.inits[before] == nil {
				l.inits[before] = map[*box]bool{}
			}
			l.inits[before][b] = true
			if len(l.inits[before]) > 1 {
				l.r.violated("%d machines were told to start the cluster", len(l.inits[before]))
			}
		}
	}
}

// acknowledged notes an answer that the machine got: what it was told is done
// must stay so.
func (l *ledger) acknowledged(b *box, r *http.Request, body []byte, a *httptest.ResponseRecorder) {
	if a.Code/100 != 2 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	note := func(what string, is func(machine.Event) bool) {
		l.acks = append(l.acks, ack{fmt.Sprintf("%s: %s", b, what), is})
	}
	switch r.URL.Path {
	case wire.PathSession:
		var reply wire.SessionReply
		_ = json.Unmarshal(a.Body.Bytes(), &reply)
		session := reply.Session
		note("session "+session, func(e machine.Event) bool { return e.Kind == "session.opened" && e.Data["session"] == session })
	case wire.PathClaim:
		var q wire.ClaimRequest
		_ = json.Unmarshal(body, &q)
		note("claim of "+q.Intent, func(e machine.Event) bool {
			return e.Kind == "intent.claimed" && e.Data["intent"] == q.Intent && e.Data["epoch"] == fmt.Sprint(q.Epoch) && e.Data["serial"] == q.Disk.Serial
		})
	case wire.PathReport:
		var q wire.Report
		_ = json.Unmarshal(body, &q)
		kind := "install.step"
		switch {
		case q.Status == wire.StepProgress:
			return
		case q.Status == wire.StepFailed:
			kind = "install.failed"
		}
		note(fmt.Sprintf("report %s %s of %s", q.Step, q.Status, q.Intent), func(e machine.Event) bool {
			return e.Kind == kind && e.Data["intent"] == q.Intent && e.Data["epoch"] == fmt.Sprint(q.Epoch) && e.Data["step"] == q.Step && e.Data["status"] == string(q.Status)
		})
	case wire.PathNodeReport:
		var q wire.NodeReport
		_ = json.Unmarshal(body, &q)
		note(fmt.Sprintf("node report %s of boot %s", q.Event, q.BootID), func(e machine.Event) bool {
			return e.Kind == "node."+string(q.Event) && e.Data["boot"] == q.BootID
		})
	case wire.PathOutput:
		var q wire.Output
		var reply wire.OutputReply
		_, _ = json.Unmarshal(body, &q), json.Unmarshal(a.Body.Bytes(), &reply)
		l.outputs[q.Stream] = max(l.outputs[q.Stream], reply.Next)
		l.keys[q.Stream] = key(r)
		if boot, ok := strings.CutPrefix(q.Stream, "node-"); ok {
			l.keys[q.Stream] = boot
		}
	}
}

// remembers compares a boot service that started again with what a reader had.
func (l *ledger) remembers(v state.View) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := v.Events(0, "", 0)
	if len(all) < len(l.events) {
		return fmt.Errorf("%d events are left of %d", len(all), len(l.events))
	}
	for n, e := range l.events {
		if all[n].Seq != e.Seq || all[n].Kind != e.Kind || all[n].Text != e.Text || !all[n].Time.Equal(e.Time) {
			return fmt.Errorf("event %d is %s %q, and was %s %q", e.Seq, all[n].Kind, all[n].Text, e.Kind, e.Text)
		}
	}
	return nil
}

// follow reads events as the console does: from where it stopped, and on.
func (r *run) follow(ctx context.Context, store *state.Store) {
	for {
		v := store.View()
		changed := v.Changed("events")
		r.ledger.read(v)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

func (l *ledger) read(v state.View) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range v.Events(uint64(len(l.events)), "", 0) {
		if want := uint64(len(l.events)) + 1; e.Seq != want {
			l.r.violated("a reader of events gets number %d, and expects %d", e.Seq, want)
			return
		}
		for _, s := range l.secrets {
			if strings.Contains(e.Text, s) || slices.ContainsFunc(slices.Collect(maps.Values(e.Data)), func(v string) bool { return strings.Contains(v, s) }) {
				l.r.violated("event %d has a secret in it", e.Seq)
			}
		}
		switch e.Kind {
		case "bootstrap.abandoned":
			l.begun++
		case "intent.retried", "machine.approved", "session.opened", "intent.revoked":
			l.r.later.Go(l.r.replay)
		}
		l.events = append(l.events, e)
		if e.Kind != "http.script" && e.Kind != "install.step" {
			l.r.tell("event %d: %s %s: %s", e.Seq, e.Machine, e.Kind, e.Text)
		}
	}
}

// claim is a permission to write, as the events tell it.
type claim struct {
	intent, serial string
	epoch          uint64
	machine        machine.ID
	at             time.Time
}

// audit compares all that was seen with what the events say.
func (l *ledger) audit(v state.View) {
	l.read(v)
	l.mu.Lock()
	defer l.mu.Unlock()
	claims := l.history()
	wrote := map[string]bool{}  // intent and disk: written already
	last := map[string]string{} // by a disk's serial number: the intent that wrote it last
	for _, w := range l.writes {
		l.auditWrite(w, claims, wrote, l.abandoned(last[w.disk.Serial]))
		last[w.disk.Serial] = w.order.Intent
	}
	for _, a := range l.acks {
		if !slices.ContainsFunc(l.events, a.is) {
			l.r.violated("acknowledged, and lost: %s", a.what)
		}
	}
	for _, b := range l.r.rack {
		if !b.wanted && !slices.Equal(b.m.Inventory.Disks, b.first) {
			l.r.violated("%s: its disks have changed", b)
		}
	}
}

// history goes through the events in their order, and holds each permission to
// what was so at that time.
func (l *ledger) history() (claims []claim) {
	newest := map[machine.ID]string{} // session
	epochs, ended, bootstrap := map[string]uint64{}, map[string]string{}, machine.ID("")
	for _, e := range l.events {
		intent := e.Data["intent"]
		switch e.Kind {
		case "session.opened":
			newest[e.Machine] = e.Data["session"]
		case "machine.approved":
			epochs[intent] = 1
		case "intent.retried":
			epochs[intent]++
			delete(ended, intent)
		case "install.failed", "intent.revoked", "install.done":
			ended[intent] = e.Kind
		case "bootstrap.abandoned":
			bootstrap = ""
		case "bootstrap.claimed":
			if bootstrap != "" && bootstrap != e.Machine {
				l.r.violated("event %d: machine %s may start the cluster, and %s may too", e.Seq, e.Machine, bootstrap)
			}
			bootstrap = e.Machine
		case "intent.claimed":
			epoch, _ := strconv.ParseUint(e.Data["epoch"], 10, 64)
			a, known := l.approvals[intent]
			switch {
			case !known || epochs[intent] == 0:
				l.r.violated("event %d: intent %s is claimed, and nobody approved it", e.Seq, intent)
			case epoch != epochs[intent]:
				l.r.violated("event %d: intent %s is claimed at epoch %d, and is at %d", e.Seq, intent, epoch, epochs[intent])
			case ended[intent] != "":
				l.r.violated("event %d: intent %s is claimed after %s", e.Seq, intent, ended[intent])
			case a.Machine != e.Machine || a.Session != newest[e.Machine]:
				l.r.violated("event %d: intent %s of session %s is claimed, and the newest is %s", e.Seq, intent, a.Session, newest[e.Machine])
			}
			claims = append(claims, claim{intent, e.Data["serial"], epoch, e.Machine, e.Time})
		}
	}
	return claims
}

// abandoned says whether an intent ended otherwise than by a finished install.
// Whoever revokes one in its last step may find that the disk was finished all the
// same: what is on it then is what the revoked install left, as was confirmed.
func (l *ledger) abandoned(intent string) bool {
	return intent != "" && !slices.ContainsFunc(l.events, func(e machine.Event) bool {
		return e.Kind == "install.done" && e.Data["intent"] == intent
	})
}

// auditWrite holds one write to the permission for it. ours says that an abandoned
// install wrote the disk last. That an install wrote a disk once is no permission
// for what somebody else wrote there before its next attempt.
func (l *ledger) auditWrite(w write, claims []claim, wrote map[string]bool, ours bool) {
	o, what := w.order, fmt.Sprintf("%s wrote disk %s (%s) by intent %s epoch %d", w.box, w.disk.Path, w.disk.Contents, w.order.Intent, w.order.Epoch)
	a := l.approvals[o.Intent]
	if !slices.ContainsFunc(claims, func(c claim) bool {
		return c.intent == o.Intent && c.epoch == o.Epoch && c.serial == w.disk.Serial && c.machine == a.Machine && !c.at.After(w.at)
	}) {
		l.r.violated("%s without a permission", what)
	}
	if !slices.Contains(l.sessions[w.boot], a.Session) || l.owners[a.Session] != w.box {
		l.r.violated("%s, which was approved for session %s, and its are %s", what, a.Session, l.sessions[w.boot])
	}
	if !w.box.wanted {
		l.r.violated("%s, which is a production machine", what)
	}
	erase := map[string]bool{machine.Empty: true, a.Erase: true}
	hints := []machine.DiskHint{a.Disk}
	for _, again := range l.retries[o.Intent] {
		erase[again.Erase] = true
		if again.Disk != nil {
			hints = append(hints, *again.Disk)
		}
	}
	if !slices.ContainsFunc(hints, func(h machine.DiskHint) bool { return h.Matches(w.disk) }) {
		l.r.violated("%s, and %v was approved", what, hints)
	}
	once := o.Intent + " " + w.disk.Serial
	own := w.disk.Contents == machine.BrokenOff || strings.HasPrefix(w.disk.Contents, machine.OfNode+" ")
	if !erase[w.disk.Contents] && !(own && (wrote[once] || ours && erase[machine.BrokenOff])) {
		l.r.violated("%s, and only %q may be lost", what, a.Erase)
	}
	wrote[once] = true
}

// auditOutput reads all output back.
func (l *ledger) auditOutput(ctx context.Context, i *incarnation) {
	v := i.store.View()
	kept := map[string]uint64{}
	for _, m := range v.Machines() {
		lines, err := i.log.Lines(ctx, v, m.ID, 0, 1_000_000)
		if err != nil {
			l.r.violated("reading the output of %s: %v", m.ID, err)
			continue
		}
		streams := map[string][]string{}
		for _, line := range lines {
			if want := uint64(len(streams[line.Stream])) + 1; line.N != want {
				l.r.violated("machine %s, stream %s: line %d, and %d is expected", m.ID, line.Stream, line.N, want)
			}
			streams[line.Stream] = append(streams[line.Stream], line.Text)
		}
		for stream, texts := range streams {
			kept[stream] = uint64(len(texts))
			l.mu.Lock()
			boot, ok := l.keys[stream]
			said := l.lines[boot]
			l.mu.Unlock()
			if ok && !contains(said, texts) {
				l.r.violated("machine %s, stream %s: %d lines that it did not say so: %.300q of %.300q", m.ID, stream, len(texts), texts, said)
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for stream, next := range l.outputs {
		if n, ok := kept[stream]; next > n+1 && (ok || !l.dropped) {
			l.r.violated("stream %s: %d lines are kept, and %d were acknowledged", stream, n, next-1)
		}
	}
}

// contains says whether texts were said one after the other.
func contains(said, texts []string) bool {
	for from := 0; from+len(texts) <= len(said); from++ {
		if slices.EqualFunc(said[from:from+len(texts)], texts, func(a, b string) bool {
			return strings.ReplaceAll(strings.TrimRight(a, "\r\n"), "\n", " ") == b
		}) {
			return true
		}
	}
	return false
}
