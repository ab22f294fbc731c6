// Package recovery makes a new generation of a cluster that lost the majority of its
// replicas for ever: out of what one of them has on its disk, or of a backup. It is a
// deliberate act, done while that replica does not run. What the others committed
// after that is lost; they cannot join the new generation, with which they share no
// authority.
//
// It is killed at any moment without loss: the new identity and the new state are
// prepared beside the old ones, and one rename decides (Finish does the rest).
package recovery

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/durable"
	"github.com/rackseed/rackseed/services/identity"
	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/peerapi"
	"github.com/rackseed/rackseed/services/state"
)

// What is in a replica's folder.
const (
	folderIdentity = "identity"
	folderState    = "state"
	folderKeys     = "keyring"    // stays: data keys are of no generation
	folderPrepared = "recovering" // being made: nothing of it counts yet
	folderDecided  = "recovered"  // it takes the place of what is there
	folderBackup   = "backup"
	folderAside    = "before-generation-"
	fileLock       = "recovery.lock"
	fileGeneration = "generation" // in folderDecided
)

const (
	askLimit    = 3 * time.Second // for other replicas to answer
	leadLimit   = time.Minute     // for the new state to be led
	commitLimit = 30 * time.Second
)

// Node is the node that a replica runs on; zero: it is the appliance's.
type Node struct {
	Machine  machine.ID
	Name     string
	Endpoint string // HOST:PORT for other replicas
}

// Options say what is recovered.
type Options struct {
	Data    string // a replica's folder
	From    string // a file of some replica's backup/; "": what the folder has
	Node    Node
	Release string
	// RecoveryKey opens the data keys' copy that is in the state, where the folder has
	// them not; "": they are in the folder.
	RecoveryKey string
	Now         func() time.Time
	Logger      *slog.Logger
}

// Recovery is one that was looked at, and not done yet. It keeps the replica from
// starting until Close.
type Recovery struct {
	Options
	// Cluster is the cluster's ID, and Site its name, by which it is confirmed.
	Cluster, Site string
	// Unused is the cluster that the folder is of, if that is another one, which no
	// machine was installed for: a new stick began it.
	Unused     string
	Generation uint64 // the new one

	own     identity.Own // zero: there is none
	past    *state.Past
	ring    *keyring.Ring // the folder's
	keys    []keyring.Key // those that the past is sealed under
	from    string        // server ID or name of the backup
	newest  time.Time
	others  []machine.Replica
	answers []string // of others that are there
	silent  []string // of those that are not
	ahead   string   // one that is there and has more; "": none
	lacks   error    // why it can only be looked at: the keys are missing
	locks   []io.Closer
}

// Begin looks at what there is, and refuses what must not be recovered.
func Begin(ctx context.Context, o Options) (r *Recovery, err error) {
	r = &Recovery{Options: o}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("recovering %s: %w", o.Data, err), r.Close())
			r = nil
		}
	}()
	if err := o.hasReplica(); err != nil {
		return r, err
	}
	if err := r.lock(filepath.Join(o.Data, fileLock)); err != nil {
		return r, err
	}
	if r.own, err = identity.Load(r.path(folderIdentity)); err != nil && (o.From == "" || !errors.Is(err, fs.ErrNotExist)) {
		return r, fmt.Errorf("its identity is missing or spoilt, so this disk lost data: take another replica, or a backup (--from): %w", err)
	}
	if err := r.read(); err != nil {
		return r, err
	}
	cluster, created := r.past.View.Cluster()
	if !created {
		return r, errors.New("it holds no cluster: this replica was never a member; recover another one, or from a backup (--from)")
	}
	if err := r.lockState(cluster.ID); err != nil {
		return r, err
	}
	if err := r.openKeys(); err != nil {
		return r, err
	}
	site, _ := r.past.View.Site()
	r.Cluster, r.Site = cluster.ID, site.Name
	r.Generation = max(cluster.Generation, r.own.Generation) + 1
	if last := r.past.View.LastEvent(); last > 0 {
		for _, e := range r.past.View.Events(last-1, "", 1) {
			r.newest = e.Time
		}
	}
	for _, x := range r.past.View.Replicas() {
		if x.ID != r.own.ID {
			r.others = append(r.others, x)
		}
	}
	return r, r.askOthers(ctx)
}

// hasReplica refuses a folder that is none of a replica, before anything is made in it.
// A backup may go into any.
func (o Options) hasReplica() error {
	if _, err := os.ReadDir(o.Data); err != nil {
		return fmt.Errorf("it is no replica's folder: name one with --data, or on a node leave that away; for a backup make an empty one: %w", err)
	}
	_, err := os.Stat(filepath.Join(o.Data, folderIdentity))
	if errors.Is(err, fs.ErrNotExist) && o.From != "" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("there is no replica in it: name its folder with --data, or on a node leave that away; from a backup: --from FILE: %w", err)
	}
	return nil
}

// openKeys finds the data keys that the past's secrets are sealed under.
func (r *Recovery) openKeys() (err error) {
	if r.ring, err = keyring.Open(r.path(folderKeys), keyring.Protectors(r.Data)...); err != nil {
		return err
	}
	now := r.past.View.Keyring()
	now.Next = "" // nothing is sealed under it yet
	if r.keys = r.ring.Keys(now.Keys()...); len(r.keys) == len(now.Keys()) {
		return nil
	}
	if r.RecoveryKey == "" {
		r.lacks = errors.Join(errors.New("this folder has not the data keys that its secrets are sealed under: bring the recovery key (--recovery-key FILE; at a stick's screen type recover NAME AGE-SECRET-KEY-1..., with the name of the cluster)"), r.ring.Lost())
		return nil
	}
	r.ring.AllowWorse() // whoever has the recovery key means it: this machine's TPM may be another one, or none
	r.keys, err = keyring.Recover(r.RecoveryKey, now.Copy)
	return err
}

// current is the data key that the past's secrets are sealed under now.
func (r *Recovery) current() (keyring.Key, error) {
	id := r.past.View.Keyring().Current
	for _, k := range r.keys {
		if k.ID == id {
			return k, nil
		}
	}
	return keyring.Key{}, fmt.Errorf("data key %s is not among those that there are: the recovery key opened an older copy", id)
}

func (r *Recovery) path(name string) string { return filepath.Join(r.Data, name) }

func (r *Recovery) lock(path string) error {
	held, err := state.Lock(path)
	if err == nil {
		r.locks = append(r.locks, held)
	}
	return err
}

// read reads the past that is recovered.
func (r *Recovery) read() (err error) {
	if r.From == "" {
		r.from = r.own.ID
		r.past, err = state.ReadPast(state.Config{Dir: r.path(folderState), ID: r.own.ID, Logger: r.Logger})
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("there is no state in it: recover another replica, or from a backup (--from)")
		}
		return err
	}
	f, err := os.Open(r.From)
	if err != nil {
		return err
	}
	defer f.Close()
	r.from = "backup " + filepath.Base(r.From)
	if r.past, err = state.ReadBackup(f); err != nil {
		return fmt.Errorf("%s: %w; another file of the same folder may be whole", r.From, err)
	}
	return nil
}

// lockState keeps the folder's own state from being used, where the past is a backup. One
// of another cluster is given up for it only if nothing was installed for that.
func (r *Recovery) lockState(cluster string) error {
	dir := r.path(folderState)
	same := r.own.ID == "" || r.own.Cluster == cluster
	switch {
	case r.From == "" && same: // ReadPast locked it
		return nil
	case r.From == "":
		return fmt.Errorf("its state is of cluster %s, and its identity of %s: recover another replica, or from a backup (--from)", cluster, r.own.Cluster)
	case same:
		return r.lockOlder(dir)
	}
	own, err := state.ReadPast(state.Config{Dir: dir, ID: r.own.ID, Logger: r.Logger})
	if err != nil {
		return err
	}
	r.locks = append(r.locks, own)
	if used(own.View) {
		return fmt.Errorf("%s is of cluster %s, and the replica in this folder of %s, for which machines were installed: use an empty folder, or a stick that was erased before it was written (writing the image over it keeps what it knew)", cmp.Or(r.From, folderState), cluster, r.own.Cluster)
	}
	r.Unused, r.own = r.own.Cluster, identity.Own{}
	return nil
}

// lockOlder locks the folder's state, from which a backup of the same cluster is to take
// over, and refuses one that has less. A state that cannot be read is what backups are for.
func (r *Recovery) lockOlder(dir string) error {
	own, err := state.ReadPast(state.Config{Dir: dir, ID: r.own.ID, Logger: r.Logger})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return r.lock(state.LockOf(dir))
	}
	r.locks = append(r.locks, own)
	if own.Last > r.past.Last {
		return fmt.Errorf("this folder has entry %d, and %s only up to entry %d: go on from what the folder has, without --from (on a stick, take rackseed.backup off it, and start it again). If its identity is lost, so that it cannot: put the backup into an empty folder (--data FOLDER), or onto a stick that was erased", own.Last, r.From, r.past.Last)
	}
	return nil
}

// used says whether anything was ever ordered in a cluster.
func used(v state.View) bool {
	return v.Bootstrap() != nil || v.EndedBootstrap() != nil || len(v.Replicas()) > 1 ||
		slices.ContainsFunc(v.Machines(), func(m machine.Machine) bool { return v.InstallIntent(m.ID) != nil })
}

// askOthers refuses while a majority is there: then nothing is lost, and there would
// be two clusters.
func (r *Recovery) askOthers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	at := map[string]string{}
	maps.Copy(at, r.own.Endpoints)
	maps.Copy(at, r.own.Named.Endpoints) // its log may have lost those
	for _, x := range r.others {
		at[x.ID] = x.Endpoint
	}
	delete(at, r.own.ID)
	if r.From != "" {
		return r.nobodyAt(ctx, at)
	}
	return r.weigh(at, peerapi.AskAll(ctx, r.own.Identity, at, r.Logger))
}

// weigh says what the answers of the others mean; at is where they were asked.
func (r *Recovery) weigh(at map[string]string, answers map[string]peerapi.Answer) error {
	there := map[string]bool{}
	var other *peer.OtherGenerationError
	for _, id := range slices.Sorted(maps.Keys(answers)) {
		a := answers[id]
		switch {
		case peer.Refused(a.Err):
			return fmt.Errorf("replica %s is there and goes on without this one, which was removed: nothing is lost", r.nameOf(id))
		case errors.As(a.Err, &other) && other.There.Generation > r.own.Generation:
			return fmt.Errorf("replica %s: %w", r.nameOf(id), a.Err)
		case a.Err != nil:
			r.silent = append(r.silent, fmt.Sprintf("replica %s (%s) does not answer: %v", r.nameOf(id), at[id], a.Err))
			continue
		}
		there[id] = true
		text := fmt.Sprintf("replica %s answers, and has entry %d", r.nameOf(id), a.Stored.Last)
		if a.Stored.Last > r.past.Last {
			text += ", which is more than this one has: recover that one instead"
			r.ahead = r.nameOf(id)
		}
		r.answers = append(r.answers, text)
	}
	return majority(state.Membership{Members: r.past.Members}.Voters(), r.own.ID, there)
}

// nobodyAt refuses a backup while any replica of the cluster answers: it has more than
// the backup, or leads. One that was left behind by an earlier recovery counts for
// nothing. Who answers proves nothing, and is not let in either: this folder may be of no
// replica, or of one whose log is lost.
func (r *Recovery) nobodyAt(ctx context.Context, at map[string]string) error {
	found := make(chan string, len(at))
	var asking sync.WaitGroup
	for id, endpoint := range at {
		asking.Go(func() {
			name, err := peer.NameAt(ctx, endpoint)
			if err == nil && name.Cluster == r.Cluster && name.Generation+1 >= r.Generation && name.ID != r.own.ID {
				found <- fmt.Sprintf("replica %s answers at %s", r.nameOf(id), endpoint)
			}
		})
	}
	asking.Wait()
	close(found)
	for text := range found {
		return fmt.Errorf("%s: a backup is for when none is left; if it does not lead, recover there, without --from", text)
	}
	return nil
}

// nameOf is how people know a replica.
func (r *Recovery) nameOf(id string) string {
	x, _ := r.past.View.Replica(id)
	return cmp.Or(x.Name, id)
}

// majority refuses to recover where more than half of the voters are there, own
// counted, and one of them answers: alone, own has nobody to go on with it.
func majority(voters []string, own string, there map[string]bool) error {
	n, others := 0, 0
	for _, id := range voters {
		if id == own || there[id] {
			n++
		}
		if id != own && there[id] {
			others++
		}
	}
	if others > 0 && n > len(voters)/2 {
		return fmt.Errorf("%d of %d voters are there, which is a majority: nothing is lost; start this replica again, and they elect a leader", n, len(voters))
	}
	return nil
}

// Text says for people, in lines, what is done, and what is lost by it.
func (r *Recovery) Text() (lines []string) {
	say := func(format string, a ...any) { lines = append(lines, fmt.Sprintf(format, a...)) }
	at := ""
	if !r.newest.IsZero() {
		at = ", of " + r.newest.UTC().Format(time.RFC3339)
	}
	say("Cluster %s (site %s) is recovered as generation %d from %s, up to entry %d%s.", r.Cluster, cmp.Or(r.Site, "without a name"), r.Generation, r.from, r.past.Last, at)
	say("- What was committed after that entry is lost.")
	if r.Unused != "" {
		say("- Cluster %s, which this stick began by itself and nobody used, is given up.", r.Unused)
	}
	say("- This replica leads alone, under a new server ID.")
	if len(r.others) > 0 {
		var names []string
		for _, x := range r.others {
			names = append(names, x.Name)
		}
		say("- The replicas of %s leave for good; they can be invited anew.", strings.Join(names, ", "))
	}
	if h, ok := r.past.View.Handoff(); ok && !h.Step.Over() {
		say("- The handoff that is under way (%s) is given up.", h.Step)
	}
	say("- Installs that are not over are stopped: look at their machines, and retry them.")
	say("- What is there now is kept in %s.", r.aside())
	for _, a := range r.answers {
		say("! %s", a)
	}
	for _, s := range r.silent {
		say("! %s", s)
	}
	if len(r.silent) > 0 {
		say("! Silent is not dead. If they are only switched off, or this machine's cable or switch is out, stop here: they go on without this one. Look at them first.")
	}
	if r.lacks != nil {
		say("! %v", r.lacks)
	}
	return lines
}

// Ahead is another replica that is there and has more, which would be lost; "": none is.
func (r *Recovery) Ahead() string { return r.ahead }

// Ready says why it can only be looked at.
func (r *Recovery) Ready() error { return r.lacks }

func (r *Recovery) aside() string { return r.path(fmt.Sprint(folderAside, r.Generation)) }

// Do recovers. by is who does it, as "root@node-1".
func (r *Recovery) Do(ctx context.Context, by string) error {
	if err := r.Ready(); err != nil {
		return err
	}
	dir := r.path(folderPrepared)
	if err := os.RemoveAll(dir); err != nil { // one that was killed
		return err
	}
	under, err := r.current()
	if err == nil {
		err = r.ring.Add(r.keys...)
	}
	if err != nil {
		return err
	}
	own, err := identity.Begin(filepath.Join(dir, folderIdentity), r.Cluster, r.Generation, under)
	if err != nil {
		return err
	}
	crt, err := under.Seal(peerapi.SecretCrt, own.AuthorityCrt)
	if err != nil {
		return err
	}
	key := sha256.Sum256(own.Public())
	c := state.ClusterRecover{
		Generation: r.Generation, Secrets: map[string]keyring.Sealed{peerapi.SecretKey: *own.AuthorityKey, peerapi.SecretCrt: crt},
		Replica: own.ID, From: r.from, Index: r.past.Last,
	}
	if node := r.node(); node.Endpoint != "" {
		c.Name, c.Machine, c.Endpoint = node.Name, node.Machine, node.Endpoint
		c.Key, c.Release, c.Level = key[:], r.Release, state.FeatureLevel
	}
	if err := r.commit(ctx, state.Config{Dir: filepath.Join(dir, folderState), ID: own.ID, Now: r.Now, Logger: r.Logger}, by, c); err != nil {
		return fmt.Errorf("the new state: %w", err)
	}
	identities := filepath.Join(dir, folderIdentity)
	if c.Endpoint != "" {
		if err := identity.KeepEndpoints(identities, map[string]string{own.ID: c.Endpoint}); err != nil {
			return err
		}
	}
	if err := errors.Join(identity.Given(identities), os.WriteFile(filepath.Join(dir, fileGeneration), fmt.Append(nil, r.Generation), 0o600), durable.SyncTree(dir)); err != nil {
		return err
	}
	if err := os.Rename(dir, r.path(folderDecided)); err != nil {
		return err
	}
	if err := durable.SyncFolder(r.Data); err != nil {
		return err
	}
	return finish(r.Data)
}

// node is where the replica runs: as the state says of the one that was in the folder,
// or as was told.
func (r *Recovery) node() Node {
	if x, known := r.past.View.Replica(r.own.ID); known {
		return Node{x.Machine, x.Name, x.Endpoint}
	}
	if _, known := r.past.View.Machine(r.Node.Machine); !known {
		return Node{} // the appliance, which tells of itself
	}
	return r.Node
}

// commit makes the new state, with what recovers it as its newest entry.
func (r *Recovery) commit(ctx context.Context, config state.Config, by string, c state.ClusterRecover) (err error) {
	if err := state.Seed(config, r.past); err != nil {
		return err
	}
	store, err := state.Open(config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	lead, cancel := context.WithTimeout(ctx, leadLimit)
	defer cancel()
	if err := store.WaitLeader(lead); err != nil {
		return err
	}
	commit, cancel := context.WithTimeout(ctx, commitLimit)
	defer cancel()
	_, err = store.Propose(commit, by, c)
	return err
}

// Close lets the replica start again.
func (r *Recovery) Close() error {
	var errs []error
	if r.past != nil {
		errs = append(errs, r.past.Close())
	}
	for _, l := range r.locks {
		errs = append(errs, l.Close())
	}
	r.past, r.locks = nil, nil
	return errors.Join(errs...)
}

// Finish completes a recovery that was decided and then cut off, and says whether
// there was one. It comes before anything in the folder is read.
func Finish(data string) (bool, error) {
	if _, err := os.Stat(filepath.Join(data, folderDecided)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return false, err
	}
	held, err := state.Lock(filepath.Join(data, fileLock))
	if err != nil {
		return false, err
	}
	return true, errors.Join(finish(data), held.Close())
}

// finish puts what was decided into the place of what is there, which it keeps.
func finish(data string) error {
	decided := filepath.Join(data, folderDecided)
	generation, err := os.ReadFile(filepath.Join(decided, fileGeneration))
	if err != nil {
		return fmt.Errorf("a recovery that was decided: %w", err)
	}
	aside := filepath.Join(data, folderAside+string(generation))
	if err := os.MkdirAll(aside, 0o700); err != nil {
		return err
	}
	// Backups go by their entries, of which there may be later ones of what is lost.
	if err := os.Rename(filepath.Join(data, folderBackup), filepath.Join(aside, folderBackup)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// The identity last: without a state beside it, it is refused, and not taken for
	// a new one.
	for _, name := range []string{folderState, folderIdentity} {
		if _, err := os.Stat(filepath.Join(decided, name)); errors.Is(err, fs.ErrNotExist) {
			continue // it is in its place
		}
		for _, move := range [][2]string{{filepath.Join(data, name), filepath.Join(aside, name)}, {filepath.Join(decided, name), filepath.Join(data, name)}} {
			if err := os.Rename(move[0], move[1]); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err := errors.Join(durable.SyncFolder(aside), durable.SyncFolder(data), durable.SyncFolder(decided)); err != nil {
				return err
			}
		}
	}
	// Not half of it under this name: it counts.
	over := filepath.Join(data, folderPrepared)
	if err := errors.Join(os.RemoveAll(over), os.Rename(decided, over), durable.SyncFolder(data)); err != nil {
		return err
	}
	return os.RemoveAll(over)
}
