// Package killed is the boot service and a rack, of which every part is killed at
// every step, thousands of times, in virtual time.
//
// The boot service's half is the product's own: state (on disk, through Raft),
// netboot, output, approval by the list and by people, silence. The machines'
// half is vm-test/simulate, whose installer is the product's own too; only what
// would touch a disk or run Kubernetes is played. Between them is a network that
// loses, delays, repeats and cuts, and a person who does things at bad moments.
//
// A seed is a schedule of faults; which of two things that happen at once comes
// first is the Go scheduler's. So a seed that fails does so often, not always.
//
//	go test ./vm-test/killed -seed=17        # one schedule, with its trace
//	go test ./vm-test/killed -runs=20000     # many
//
// Faults that were put into the product, to see them caught, each within the
// first 20 schedules:
//
//   - a claim is granted without looking at its epoch, or at what is on the disk;
//   - a claim is answered before it is committed;
//   - output is acknowledged before it is committed;
//   - the installer's journal drops what it could not send, or takes it for sent;
//   - any control plane is told to start the cluster, and permitted to.
//
// What is not tried: power cuts that lose what was written and not yet flushed (a
// folder is opened again as it was left), several replicas, and DHCP.
package killed

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var (
	seed = flag.Uint64("seed", 0, "replay one schedule of faults, and show its trace")
	runs = flag.Uint64("runs", 24, "how many schedules are tried")
	from = flag.Uint64("from", 1, "the first of them")
)

// stormy is how long things go wrong in each run, at least.
const stormy = 10 * time.Minute

// run is one schedule.
type run struct {
	seed    uint64
	rng     *rand.Rand // of the schedule that is no machine's
	weather int        // 1 to 10
	ctx     context.Context
	calm    atomic.Bool // nothing goes wrong any more
	service *service
	rack    []*box
	ledger  *ledger
	later   sync.WaitGroup // requests that arrive once more

	mu         sync.Mutex
	began      time.Time
	trace      []string
	violations []string
	stop       context.CancelFunc
}

func (r *run) tell(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trace = append(r.trace, fmt.Sprintf("%12s ", time.Since(r.began).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

// violated notes what must never be.
func (r *run) violated(format string, args ...any) {
	r.tell("VIOLATED: "+format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.violations = append(r.violations, fmt.Sprintf(format, args...))
	r.stop()
}

// outcome is what a run showed.
type outcome struct {
	violations, trace []string
	answers, starts   int
	took              time.Duration // in virtual time
}

// try tries one schedule. It is called in a bubble.
func try(seed uint64, dir string) outcome {
	r := &run{seed: seed, rng: rand.New(rand.NewPCG(seed, 0)), began: time.Now()}
	r.ledger = newLedger(r)
	r.weather = 1 + r.rng.IntN(10)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r.ctx, r.stop = ctx, cancel
	r.rack = newRack(r)
	r.service = &service{r: r, dir: dir, failed: make(chan *incarnation, 1)}
	if err := r.service.start(); err != nil {
		r.violated("the boot service does not start: %v", err)
		return r.outcome()
	}
	var all, person sync.WaitGroup
	off := rand.New(rand.NewPCG(seed, 1<<32))
	all.Go(func() {
		r.service.revive(ctx, func() time.Duration { return time.Duration(off.IntN(40_000)) * time.Millisecond })
	})
	for _, b := range r.rack {
		all.Go(func() { b.run(ctx) })
	}
	storm, over := context.WithTimeout(ctx, stormy+time.Duration(r.rng.Int64N(int64(20*time.Minute))))
	defer over()
	o := &operator{r}
	person.Go(func() { o.meddle(storm) })
	person.Wait()
	r.calm.Store(true)
	r.tell("from now on nothing goes wrong")
	if err := o.mend(ctx); err != nil {
		r.violated("after %v without faults: %v", calmest, err)
	}
	if i := r.service.enter(); i != nil {
		r.ledger.audit(i.store.View())
		r.ledger.auditOutput(context.Background(), i)
		i.work.Done()
	} else {
		r.violated("the boot service is off at the end")
	}
	cancel()
	all.Wait()
	if err := r.service.end(); err != nil {
		r.violated("the boot service's end: %v", err)
	}
	r.later.Wait()
	return r.outcome()
}

func (r *run) outcome() outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := outcome{violations: r.violations, trace: r.trace, answers: r.ledger.answers, took: time.Since(r.began)}
	for _, b := range r.rack {
		o.starts += b.starts
	}
	return o
}

// shown is the most of a trace that a failed run shows, in lines.
const shown = 400

// TestKilledAnywhere tries many schedules.
func TestKilledAnywhere(t *testing.T) {
	first, last := *from, *from+*runs
	if *seed != 0 {
		first, last = *seed, *seed+1
	}
	var next, answers, starts, virtual atomic.Uint64
	var failed atomic.Bool // one trace is enough to read
	next.Store(first)
	began := time.Now()
	t.Run("runs", func(t *testing.T) {
		for worker := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint(worker), func(t *testing.T) {
				t.Parallel()
				for n := next.Add(1) - 1; n < last && !failed.Load(); n = next.Add(1) - 1 {
					dir, err := os.MkdirTemp(memory(), "rackseed-killed-")
					if err != nil {
						t.Fatal(err)
					}
					var o outcome
					synctest.Test(t, func(*testing.T) { o = try(n, dir) })
					if err := os.RemoveAll(dir); err != nil {
						t.Error(err)
					}
					answers.Add(uint64(o.answers))
					starts.Add(uint64(o.starts))
					virtual.Add(uint64(o.took))
					if *seed != 0 || len(o.violations) > 0 {
						if over := len(o.trace) - shown; over > 0 && *seed == 0 {
							o.trace = o.trace[over:]
						}
						t.Logf("seed %d:\n%s", n, strings.Join(o.trace, "\n"))
					}
					for _, v := range o.violations {
						t.Errorf("seed %d: %s", n, v)
					}
					if len(o.violations) > 0 {
						failed.Store(true)
						t.Logf("again: go test ./vm-test/killed -seed=%d", n)
					}
				}
			})
		}
	})
	t.Logf("%d schedules, %d answers, %d times switched on, %v of virtual time in %v",
		last-first, answers.Load(), starts.Load(), time.Duration(virtual.Load()).Round(time.Minute), time.Since(began).Round(time.Second))
}

// memory is where a disk costs nothing, or "".
func memory() string {
	const dir = "/dev/shm"
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return dir
	}
	return ""
}
