package replica

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/events"
	"github.com/rackseed/rackseed/services/handoff"
	"github.com/rackseed/rackseed/services/identity"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/peerapi"
	"github.com/rackseed/rackseed/services/state"
)

// applianceName is the name of the replica that no node carries.
const applianceName = "appliance"

var errStarting = errors.New("this replica is still starting")

// onNode says whether this replica runs on a node, which is told its endpoint;
// the appliance finds its own in the site file.
func (c Config) onNode() bool { return c.Endpoint != "" }

// image is the digest of the image that this replica runs; "": it runs from none.
func (c Config) image() string {
	_, digest, _ := strings.Cut(c.Image, "@")
	return digest
}

func (r *replica) identityDir() string { return filepath.Join(r.Data, "identity") }

// identify finds out who this replica is: who it was, or one that joins by an
// invitation, or the first of a cluster that it begins.
func (r *replica) identify(ctx context.Context) (identity.Own, error) {
	own, err := identity.Load(r.identityDir())
	_, noState := os.Stat(filepath.Join(r.Data, "state"))
	switch {
	case err == nil && own.Sealed == nil && own.Founder && own.AuthorityKey == nil && errors.Is(noState, fs.ErrNotExist):
		return own, fmt.Errorf("%s has an identity and no state: it was lost, and with it what this replica promised to others; it must not begin anew under its name: remove the folder, or restore all of it", r.Data)
	case !errors.Is(err, fs.ErrNotExist):
		return own, err
	}
	if noState == nil {
		return own, fmt.Errorf("%s has a state and no identity: it was copied in part, or is of a version before the first release; begin with an empty folder", r.Data)
	}
	if r.onNode() {
		return r.join(ctx)
	}
	key, err := r.firstKey()
	if err != nil {
		return own, err
	}
	return identity.Found(r.identityDir(), key)
}

// join asks until the cluster takes this replica in: its leader may be changing.
func (r *replica) join(ctx context.Context) (own identity.Own, err error) {
	if r.Join == "" {
		return own, fmt.Errorf("%s is empty: a replica on a node joins by an invitation: --join FILE", r.Data)
	}
	text, err := os.ReadFile(r.Join)
	if err != nil {
		return own, fmt.Errorf("the invitation: %w", err)
	}
	var invitation peer.Invitation
	if err := json.Unmarshal(text, &invitation); err != nil {
		return own, fmt.Errorf("the invitation %s: %w", r.Join, err)
	}
	for wait := restartFirst; ; wait = min(2*wait, restartMost) {
		own, err := identity.Join(ctx, r.identityDir(), invitation, peerapi.JoinRequest{Endpoint: r.Endpoint, Release: r.Release, Level: state.FeatureLevel, Image: r.image()})
		if refusal := (*state.Refusal)(nil); err == nil || errors.As(err, &refusal) {
			return own, err
		}
		r.Logger.Warn("replica: not taken in yet", "error", err, "again", wait)
		r.tasks.set(taskBegin, false, "not taken in yet: "+err.Error(), api.HealthWaiting)
		if !pause(ctx, wait) {
			return own, err
		}
	}
}

// pause waits; false when ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// meet makes this replica's side of the connections between replicas. It dials
// at once; it listens once it knows where (serveReplicas).
func (r *replica) meet() {
	r.answers = &peerapi.Server{Report: r.report, Expects: r.expects, Seal: r.seal, Try: r.tryOther, Backup: r.keepBackup, Fetch: r.fetchImage, Keys: r.giveKeys}
	r.network = peer.New(peer.Config{
		Identity: r.own.Identity, Member: r.isMember, Endpoint: r.endpointOf,
		Members: r.answers.Members(), Joins: r.answers.Joins(), Logger: r.Logger,
	})
}

// expects refuses a replica whose plan was given up after it was invited: nothing would
// make it a member, and it would count as one of the boot service's for ever.
func (r *replica) expects(of machine.ID) error {
	if h, ok := r.store.Load().View().Handoff(); ok && h.Wants(of) {
		return nil
	}
	return &state.Refusal{Text: "no handoff is under way that wants a replica there: it was given up since the invitation; start another one, which invites anew"}
}

// isMember says whether another replica is one that this one talks to.
func (r *replica) isMember(id string) bool {
	store := r.store.Load()
	if store == nil {
		return false
	}
	if store.Membership().Has(id) {
		return true
	}
	// Its certificate says that the cluster took it in. One that joined is not in
	// the configuration yet, and one that this replica has not heard of may lead by
	// now: it can be heard of only from there. Only who left is over.
	x, known := store.View().Replica(id)
	return !known || x.InService()
}

// endpointOf is where another replica listens: as the state says or, before
// there is one, as it was last.
func (r *replica) endpointOf(id string) (string, error) {
	if store := r.store.Load(); store != nil {
		if x, ok := store.View().Replica(id); ok {
			return x.Endpoint, nil
		}
	}
	if at := r.own.Endpoints[id]; at != "" {
		return at, nil
	}
	return "", errors.New("where it listens is not known")
}

// endpoint is where other replicas find this one: what it was told, or the
// appliance's own address on the link that carries the service address. "": no
// other replica can come to it.
func (r *replica) endpoint(view state.View) string {
	if r.onNode() {
		return r.Endpoint
	}
	if r.Dev {
		return ""
	}
	site, ok := view.Site()
	if !ok {
		return r.own.Endpoints[r.own.ID]
	}
	for _, l := range site.Links {
		if l.Address.Contains(site.ServiceAddress) {
			return net.JoinHostPort(l.Address.Addr().String(), peer.Port)
		}
	}
	return ""
}

// serveReplicas listens for other replicas, and anew when it does elsewhere.
func (r *replica) serveReplicas(ctx context.Context, tell report) error {
	store := r.store.Load()
	for ctx.Err() == nil {
		view := store.View()
		changed := view.Changed("site")
		at := r.endpoint(view)
		if at == "" {
			tell(true, "no other replica can join: that takes a site file with a link that carries the service address")
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		if err := r.listen(ctx, tell, at); err != nil {
			return err
		}
	}
	return nil
}

// listen listens at one endpoint, as long as it is this replica's.
func (r *replica) listen(ctx context.Context, tell report, at string) error {
	l, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- r.network.Serve(serving, l) }()
	tell(true, "other replicas find this one at "+at)
	store := r.store.Load()
	for {
		view := store.View()
		changed := view.Changed("site")
		if r.endpoint(view) != at {
			stop()
		}
		select {
		case <-changed:
		case err := <-ended:
			return err
		}
	}
}

// introduce tells the others who this replica is and where, and keeps where they
// are.
func (r *replica) introduce(ctx context.Context, tell report) error {
	store := r.store.Load()
	// What is known until then may be old: what is on disk is newer.
	tell(false, "catching up with the leader", api.HealthWaiting)
	if err := store.CatchUp(ctx); err != nil {
		return err
	}
	key := sha256.Sum256(r.own.Public())
	kept := r.own.Endpoints
	for ctx.Err() == nil {
		view := store.View()
		changed := view.Changed("replicas", "site")
		now := map[string]string{}
		for _, x := range view.Replicas() {
			now[x.ID] = x.Endpoint
		}
		r.network.Recheck() // one may have left
		if !maps.Equal(now, kept) && len(now) > 0 {
			if err := identity.KeepEndpoints(r.identityDir(), now); err != nil {
				return err
			}
			kept = now
		}
		if err := r.forgetNamed(store); err != nil {
			return err
		}
		known, told := view.Replica(r.own.ID)
		want := state.ReplicaTell{
			ID: r.own.ID, Name: cmp.Or(known.Name, applianceName), Machine: known.Machine, Endpoint: r.endpoint(view),
			Key: key[:], Release: r.Release, Level: state.FeatureLevel, Image: r.image(), Protector: r.keys.Protector(),
		}
		switch {
		case want.Endpoint == "":
			tell(true, "this replica is the only one")
		case !told && r.onNode(): // its log has not come to where it joined
			tell(false, "catching up", api.HealthWaiting)
		case !told || known.Endpoint != want.Endpoint || known.Release != want.Release || known.Level != want.Level || known.Image != want.Image || known.Protector != want.Protector:
			commit, cancel := context.WithTimeout(ctx, commitTimeout)
			_, err := store.Propose(commit, r.own.ID, want)
			cancel()
			if err != nil {
				return err
			}
			continue
		default:
			tell(true, fmt.Sprintf("%d replicas: %s", len(now), store.Membership()))
		}
		select {
		case <-changed:
		case <-r.ringKept:
		case <-ctx.Done():
		}
	}
	return nil
}

// report is how this replica is, for the leader.
func (r *replica) report() (handoff.Report, error) {
	store := r.store.Load()
	if store == nil {
		return handoff.Report{}, errStarting
	}
	medium, _ := store.Medium()
	index, hash, err := store.Checked()
	blobs, output := r.copies.Status(), events.Copies{}
	if log := r.output.Load(); log != nil {
		output = log.Copies()
	}
	away := ""
	if site, ok := store.View().Site(); ok {
		here, err := r.siteHere(site)
		if err != nil {
			return handoff.Report{}, err
		}
		away = unserved(site, here)
	}
	backup := ""
	if mark := r.backup.Load(); mark != nil {
		backup = *mark
	}
	return handoff.Report{
		Stored: store.Stored(), Checked: index, Hash: hash, Counted: blobs.Counted && output.Counted,
		Missing: blobs.Missing + output.Missing, MissingBytes: blobs.Bytes + output.Bytes, Lost: blobs.Lost, Unserved: away,
		Sync: medium.Median, Clock: r.Now(), Sealed: r.sealed.Load(),
		Keys: r.keys.IDs(), Protector: r.keys.Protector(), Backup: backup,
	}, err
}
