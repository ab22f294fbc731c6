package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/approve"
	"github.com/rackseed/rackseed/services/blob"
	"github.com/rackseed/rackseed/services/blobsync"
	"github.com/rackseed/rackseed/services/dhcp/foreign"
	"github.com/rackseed/rackseed/services/events"
	"github.com/rackseed/rackseed/services/handoff"
	"github.com/rackseed/rackseed/services/identity"
	"github.com/rackseed/rackseed/services/ignition"
	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/peerapi"
	"github.com/rackseed/rackseed/services/recovery"
	"github.com/rackseed/rackseed/services/rollout"
	"github.com/rackseed/rackseed/services/setup"
	"github.com/rackseed/rackseed/services/silence"
	"github.com/rackseed/rackseed/services/state"
)

const (
	by            = "replica" // who proposes, in the log
	commitTimeout = 30 * time.Second
	leaderTimeout = 2 * time.Minute // a stick's flash can be slow to replay a log from
	apiPort       = "6443"          // of the Kubernetes API
)

// replica is one running boot service.
type replica struct {
	Config
	tasks     *supervisor
	own       identity.Own
	keys      *keyring.Ring
	network   *peer.Network   // to other replicas
	answers   *peerapi.Server // to them
	file      siteFile
	store     atomic.Pointer[state.Store] // nil until it is open
	blobs     *blob.Store
	copies    *blobsync.Loop
	slow      slowness // of the others
	handoff   atomic.Pointer[handoff.Loop]
	rollout   atomic.Pointer[rollout.Loop]
	others    atomic.Pointer[[]handoff.Seen] // as the leader saw them last; nil: this one does not lead
	alone     atomic.Int64                   // since when nobody leads, as Unix nanoseconds; 0: somebody does
	backingUp sync.Mutex                     // the leader's order and its own loop write backups
	backup    atomic.Pointer[string]         // state.Keyring.Mark of the newest backup that it wrote
	sealed    atomic.Bool                    // it is over for this replica
	letGo     atomic.Bool                    // and those that go on know it
	log       *events.Log
	output    atomic.Pointer[events.Log] // log, once it is open
	api       func() (*api.Server, error)
	// watchers know of other DHCP servers on the links, by interface; one
	// dhcp.Server at a time has them.
	watchers map[string]*foreign.Watcher

	rekeying sync.Mutex    // held while a data key is made that the state does not name
	ringKept chan struct{} // the ring has what it is to have; of one entry

	mu     sync.Mutex
	people net.Addr // where the console is served; nil until it is
}

// Run runs a replica until ctx ends, and then returns nil. An error is what no
// restart of a part could mend: a state that cannot be opened, or that holds an
// entry this version cannot apply.
func Run(ctx context.Context, c Config) error {
	if c.Data == "" {
		return errors.New("a folder for the data is needed: --data FOLDER")
	}
	c = c.filled()
	if err := c.portsFree(); err != nil {
		return err
	}
	r := &replica{Config: c, watchers: map[string]*foreign.Watcher{}, ringKept: make(chan struct{}, 1)}
	r.file.read = make(chan struct{})
	r.tasks = newSupervisor(r.Logger)
	ctx, cancel := context.WithCancelCause(ctx)
	// The screen first: it shows how far the rest has come.
	var screen sync.WaitGroup
	if r.Local != "" {
		screen.Go(func() { r.tasks.run(ctx, task{"screen", r.serveLocal}) })
	}
	working, halt := context.WithCancelCause(ctx)
	err := r.work(working, halt)
	halt(nil)
	if errors.Is(err, errSealed) {
		r.Logger.Info("replica: it is sealed: nodes carry the boot service")
		r.rest(ctx)
		err = nil
	}
	cancel(nil)
	screen.Wait()
	return err
}

// portsFree fails at once where a person chose the ports and can choose others:
// elsewhere a busy one is tried again until it is free.
func (c Config) portsFree() error {
	if !c.Dev {
		return nil
	}
	for flag, at := range map[string]string{"--https": c.HTTPS, "--http": c.HTTP} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			return fmt.Errorf("%w: another program has it; choose another with %s (make dev: CONSOLE_PORT, HTTP_PORT)", err, flag)
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}

// work opens everything and runs until ctx ends. halt ends it for a cause.
func (r *replica) work(ctx context.Context, halt context.CancelCauseFunc) (err error) {
	stop := make(chan error, 1)
	store, err := r.open(ctx, func(err error) {
		select {
		case stop <- err:
		default:
		}
		halt(err)
	})
	if err != nil {
		return err
	}
	defer func() {
		r.store.Store(nil)
		r.network.Close()
		err = errors.Join(err, store.Close())
	}()
	// Other replicas first: they may have to tell this one what is committed.
	var meeting sync.WaitGroup
	meeting.Go(func() { r.tasks.run(ctx, task{"replicas", r.serveReplicas}) })
	meeting.Go(func() { r.watchDisk(ctx, store) })
	meeting.Go(func() {
		if r.untilLetGo(ctx, store); ctx.Err() == nil {
			halt(errSealed)
		}
	})
	err = r.begin(ctx, store)
	if err == nil {
		err = r.serve(ctx, store)
	}
	halt(nil) // meeting ends, whatever ended the rest
	meeting.Wait()
	if errors.Is(context.Cause(ctx), errSealed) {
		return errSealed
	}
	select {
	case err := <-stop:
		return fmt.Errorf("the state cannot go on: %w", err)
	default:
		return err
	}
}

// serve serves machines and people, as far as this replica's part goes: every
// one serves people; the one that leads serves machines.
func (r *replica) serve(ctx context.Context, store *state.Store) error {
	files, err := events.OpenFiles(filepath.Join(r.Data, "output"))
	if err != nil {
		return err
	}
	r.log = events.New(store, files)
	r.log.Others = peers{r}
	r.output.Store(r.log)
	r.api = sync.OnceValues(r.newAPI)
	var setup sync.WaitGroup
	setup.Go(func() { r.forgetSetupCode(ctx, store) })
	// The first word is the part that status and health show. Each runs as long as the
	// replica does; whileLeading: while it leads; whileServing: while it leads and what
	// it does is kept. Beside them: screen (Run), replicas (work),
	// and the servers of a site (machines.go).
	tasks := []task{
		{"storage", r.watchMedium},
		{"membership", r.introduce},
		{"secrets", r.keepKeys},
		{"backups", r.keepBackups},
		{"blobs", func(ctx context.Context, tell report) error { return r.copies.Run(ctx, tell.plain) }},
		{"handoff", r.runHandoff},
		{"other replicas", r.whileLeading(r.watchOthers)},
		{"handoff by the site file", r.whileServing(r.startHandoff)},
		{"rollout", r.runRollout},
		{"copies of output", func(ctx context.Context, tell report) error { return r.log.Copy(ctx, tell.plain) }},
		{"output", func(ctx context.Context, tell report) error {
			// What the state does not name is removed: it must not be an old one.
			tell(false, "catching up with the leader", api.HealthWaiting)
			if err := store.CatchUp(ctx); err != nil {
				return err
			}
			return r.log.Run(ctx, tell.plain)
		}},
		{"console", r.serveConsole},
		{"cluster", r.whileServing(r.followCluster)},
		{"approval", r.whileServing(func(ctx context.Context, tell report) error {
			tell(true, "machines that the site file lists with approve are approved as they report")
			return (&approve.Loop{Store: store, Logger: r.Logger}).Run(ctx)
		})},
		{"silence", r.whileServing(func(ctx context.Context, tell report) error {
			tell(true, "machines that fall silent after their boot decision are told of")
			return (&silence.Loop{Store: store, Now: r.now, Logger: r.Logger}).Run(ctx)
		})},
		{"machines", r.serveSite},
	}
	if r.onNode() {
		r.file.once.Do(func() { close(r.file.read) }) // it has none
	} else {
		// While it leads: as a follower it would undo what people did elsewhere.
		tasks = append(tasks, task{"site file", r.whileLeading(r.watchSite)}, task{"images", r.whileLeading(r.publish)})
	}
	r.tasks.run(ctx, tasks...)
	setup.Wait()
	return nil
}

// followCluster does in Kubernetes what joins leave to do.
func (r *replica) followCluster(ctx context.Context, tell report) error {
	if r.Plugins.Follow == nil {
		tell(true, "built without Kubernetes")
		<-ctx.Done()
		return nil
	}
	return r.Plugins.Follow(ctx, r.store.Load().View, tell.plain)
}

// open opens the data folder.
func (r *replica) open(ctx context.Context, halt func(error)) (*state.Store, error) {
	err := os.MkdirAll(r.Data, 0o700)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if finished, err := recovery.Finish(r.Data); err != nil {
		return nil, fmt.Errorf("completing a recovery: %w", err)
	} else if finished {
		r.Logger.Warn("replica: a recovery that was cut off is complete")
	}
	if err := r.openKeys(); err != nil {
		return nil, err
	}
	if r.own, err = r.identify(ctx); err != nil {
		return nil, fmt.Errorf("who this replica is: %w", err)
	}
	if r.own.Sealed != nil {
		if err := r.keys.Destroy(); err != nil { // it may have been killed over it
			return nil, err
		}
		return nil, errSealed
	}
	if r.Slower == 0 && !r.onNode() {
		r.Slower = r.siteFiles().Read().Site.Slower()
	}
	if err := r.mayOpen(ctx); err != nil {
		return nil, err
	}
	r.meet()
	store, err := state.Open(state.Config{
		Dir: filepath.Join(r.Data, "state"), ID: r.own.ID, Now: r.Now, Logger: r.Logger, Halt: halt,
		Stream: r.network.Raft(), Peers: r.client(), Members: r.network.Recheck,
		Joins: !r.own.Founder, Fresh: r.own.Fresh, Keys: r.keys, Slower: r.Slower, BeforeVote: r.beforeVote,
	})
	if err != nil {
		r.network.Close()
		return nil, fmt.Errorf("state: %w", err)
	}
	// After the state, whose lock keeps another process off the folder: opening
	// removes what is half written.
	if r.blobs, err = blob.Open(filepath.Join(r.Data, "blobs"), r.Images...); err != nil {
		r.network.Close()
		return nil, errors.Join(fmt.Errorf("blob store: %w", err), store.Close())
	}
	r.copies = &blobsync.Loop{Blobs: r.blobs, Images: r.images, Source: peers{r}, Logger: r.Logger}
	r.answers.Store, r.answers.Blobs, r.answers.Output = store, r.blobs, takes{r}
	r.store.Store(store)
	return store, nil
}

// now is the time, never before what was committed. Now is the machine's clock.
func (r *replica) now() time.Time { return r.store.Load().Now() }

// taskBegin is the name under which it is told what the start waits for.
const taskBegin = "state"

// begin waits until this replica has the cluster's state, or makes the cluster.
func (r *replica) begin(ctx context.Context, store *state.Store) error {
	alone := r.own.Founder && len(store.Membership().Members) == 1
	if alone {
		if err := r.lead(ctx, store); err != nil {
			return err
		}
		if err := r.create(ctx, store); err != nil {
			return err
		}
	}
	defer r.tasks.drop(taskBegin)
	tell := func(ok bool, text string, kind ...api.HealthKind) { r.tasks.set(taskBegin, ok, text, kind...) }
	for {
		view := store.View()
		changed := view.Changed("cluster")
		if _, created := view.Cluster(); created {
			break
		}
		r.leaderless(tell, "waiting for the other replicas, which know what is committed: "+store.Membership().String())
		look := time.NewTimer(roleLook)
		select {
		case <-changed:
		case <-look.C:
		case <-ctx.Done():
			look.Stop()
			return nil
		}
		look.Stop()
	}
	if r.own.Fresh {
		if err := identity.Begun(r.identityDir()); err != nil {
			return err
		}
	}
	if r.own.AuthorityKey != nil { // ClusterCreate had it
		return identity.Given(r.identityDir())
	}
	return nil
}

func (r *replica) lead(ctx context.Context, store *state.Store) error {
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	if err := store.WaitLeader(ctx); err != nil {
		return fmt.Errorf("state in %s: no leader within %v: %w", r.Data, leaderTimeout, err)
	}
	return nil
}

// create begins the cluster at the first start. The setup code is on disk
// before its hash is committed: killed in between, the next start takes the
// same code.
func (r *replica) create(ctx context.Context, store *state.Store) error {
	if _, ok := store.View().Cluster(); ok {
		return nil
	}
	code, err := oneLine(r.setupFile(), newSetupCode)
	if err != nil {
		return fmt.Errorf("setup code: %w", err)
	}
	secrets := map[string][]byte{}
	if r.Plugins.Secrets != nil {
		if secrets, err = r.Plugins.Secrets(r.now()); err != nil {
			return fmt.Errorf("the cluster's secrets: %w", err)
		}
	}
	secrets[secretConsoleKey], secrets[secretConsoleCrt], err = newConsoleCertificate(r.now(), []string{"localhost", ignition.RegistryHost}, r.addresses())
	if err != nil {
		return fmt.Errorf("the console's certificate: %w", err)
	}
	secrets[peerapi.SecretCrt] = r.own.AuthorityCrt
	if r.own.AuthorityKey == nil {
		return fmt.Errorf("%s: the key of the replicas' authority is missing: remove the folder, and begin anew", r.identityDir())
	}
	list := r.keys.Keys(r.own.AuthorityKey.Key)
	if len(list) == 0 {
		return fmt.Errorf("%s: data key %s is missing, before there was a cluster: remove the folder, and begin anew: %w", r.Data, r.own.AuthorityKey.Key, r.keys.Lost())
	}
	sealed, err := sealAll(list[0], secrets)
	if err != nil {
		return fmt.Errorf("sealing the cluster's secrets: %w", err)
	}
	sealed[peerapi.SecretKey] = *r.own.AuthorityKey
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	_, err = store.Propose(ctx, by, state.ClusterCreate{
		ID: r.own.Cluster, Generation: r.own.Generation, Key: list[0].ID, Secrets: sealed, SetupHash: api.SetupHash(code),
	})
	if err != nil {
		return fmt.Errorf("creating the cluster: %w", err)
	}
	return nil
}

// addresses are those at which people may open the console: this machine's
// and, if the site file is valid already, those that it says.
func (r *replica) addresses() []net.IP {
	list := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	if present, err := net.InterfaceAddrs(); err == nil { // without them the browser warns once more
		for _, a := range present {
			if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
				list = append(list, n.IP)
			}
		}
	}
	now := r.siteFiles().Read()
	if now.Source != setup.Nowhere {
		list = append(list, now.Site.ServiceAddress.AsSlice())
	}
	for _, l := range now.Site.Links {
		list = append(list, l.Address.Addr().AsSlice())
	}
	return list
}

func (r *replica) setupFile() string { return filepath.Join(r.Data, "setup-code") }

// forgetSetupCode removes the code's file once it was used.
func (r *replica) forgetSetupCode(ctx context.Context, store *state.Store) {
	for {
		view := store.View()
		changed := view.Changed("cluster")
		if cluster, ok := view.Cluster(); ok && cluster.SetupUsed {
			if err := os.Remove(r.setupFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
				r.Logger.Warn("replica: the used setup code stays on disk", "error", err)
			}
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func trim(b []byte) string { return strings.TrimSpace(string(b)) }

// console is where the console is served, or nil.
func (r *replica) console() net.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.people
}

func (r *replica) setConsole(a net.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.people = a
}
