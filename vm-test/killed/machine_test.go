package killed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
	"github.com/rackseed/rackseed/vm-test/simulate"
)

// box is one machine, with its power supply and its cable.
type box struct {
	r       *run
	number  int
	m       *simulate.Machine
	wanted  bool // shall become a node; else it is a production machine that is left alone
	listed  bool // approved by the site file's list
	address string
	first   []machine.Disk // its disks before anything happened

	mu     sync.Mutex
	rng    *rand.Rand
	power  *power
	cable  time.Time // unplugged until then
	ready  bool      // its node is
	idle   error     // what it does, and will not leave by itself
	starts int
	wire   []recorded        // what somebody who listens has of it
	others map[string]string // by path: what somebody else wrote to a disk
}

func (b *box) String() string { return fmt.Sprintf("machine %d", b.number) }

// power is the machine's, from one time that it is switched on to the loss.
type power struct {
	box    *box
	ctx    context.Context
	cancel context.CancelFunc
	gone   atomic.Bool
}

func (p *power) off() bool { return p.gone.Load() }

func (p *power) cut() {
	if !p.gone.Swap(true) {
		p.box.r.tell("%s: POWER CUT", p.box)
		p.cancel()
	}
}

// fate draws one request's.
func (b *box) fate() (fate, time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.rng.IntN(1000 * 10 / b.r.weather)
	late := time.Duration(b.rng.Int64N(int64(4 * time.Minute)))
	if b.r.calm.Load() {
		return passes, 0
	}
	for _, c := range chances {
		if n -= c.of; n < 0 {
			return c.fate, late
		}
	}
	return passes, 0
}

func (b *box) draw(n int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rng.IntN(n)
}

func (b *box) unplugged() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Before(b.cable) && !b.r.calm.Load()
}

func (b *box) unplug(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cable = time.Now().Add(d)
}

// button switches the machine off and on again.
func (b *box) button() {
	b.mu.Lock()
	p := b.power
	b.mu.Unlock()
	if p != nil {
		p.cut()
	}
}

func (b *box) set(ready bool, idle error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ready, b.idle = ready, idle
}

func (b *box) state() (ready bool, idle error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ready, b.idle
}

// run lives: switched on, cut, and switched on again.
func (b *box) run(ctx context.Context) {
	for ctx.Err() == nil {
		on, cancel := context.WithCancel(ctx)
		p := &power{box: b, ctx: on, cancel: cancel}
		b.mu.Lock()
		b.power, b.ready, b.idle = p, false, nil
		b.starts++
		b.mu.Unlock()
		b.m.Transport = p
		// Firmware takes the card that has a link first, or the next.
		b.m.Inventory.BootMAC = b.m.Inventory.NICs[b.draw(len(b.m.Inventory.NICs))].MAC
		b.r.tell("%s: is switched on, netboots from %s", b, b.m.Inventory.BootMAC)
		err := b.m.Run(on)
		if ctx.Err() == nil && !p.off() {
			if err == nil {
				b.r.tell("%s: is Ready", b)
			} else {
				b.r.tell("%s: stands still: %v", b, err)
			}
			b.set(err == nil, err)
			<-on.Done()
		}
		cancel()
		wait(ctx, time.Second+time.Duration(b.draw(60))*time.Second)
	}
}

// Said implements simulate.Observer.
func (b *box) Said(boot, line string) { b.r.ledger.said(boot, line) }

// somebodys is what somebody else writes to disks.
const somebodys = `GPT, 1 partition: ext4 "precious"`

// Finds implements simulate.Observer.
func (b *box) Finds(d machine.Disk) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.wanted && (d.Contents == machine.Empty || d.Contents == machine.BrokenOff) && b.others[d.Path] == "" && !b.r.calm.Load() && b.rng.IntN(1000) < 4*b.r.weather {
		b.others[d.Path] = somebodys
		b.r.tell("%s: somebody writes to its disk %s", b, d.Path)
	}
	if text := b.others[d.Path]; text != "" {
		return text
	}
	return d.Contents
}

// Writes implements simulate.Observer.
func (b *box) Writes(boot string, disk machine.Disk, order wire.Order) {
	b.mu.Lock()
	if text := b.others[disk.Path]; text != "" {
		disk.Contents = text
	}
	b.mu.Unlock()
	b.r.tell("%s: writes %s (%s) by %s epoch %d", b, disk.Path, disk.Contents, order.Intent, order.Epoch)
	b.r.ledger.wrote(b, boot, disk, order)
	// In the middle of writing is the worst moment.
	b.mu.Lock()
	delete(b.others, disk.Path)
	unlucky := !b.r.calm.Load() && b.rng.IntN(1000) < 5*b.r.weather
	p := b.power
	b.mu.Unlock()
	if unlucky {
		p.cut()
	}
}

var _ simulate.Observer = (*box)(nil)

// newRack is what stands in the rack: nodes to be, of all kinds, and a
// production machine.
func newRack(r *run) []*box {
	var rack []*box
	add := func(hardware int, wanted, listed bool) *box {
		b := &box{
			r: r, number: len(rack) + 1, wanted: wanted, listed: listed, address: fmt.Sprintf("192.0.2.%d:1024", 100+len(rack)),
			others: map[string]string{}, rng: rand.New(rand.NewPCG(r.seed, uint64(len(rack)+1))),
		}
		b.m = &simulate.Machine{
			URL: "http://192.0.2.1", Inventory: simulate.Hardware(hardware), Pace: time.Duration(100+b.rng.IntN(1900)) * time.Millisecond,
			Log: slog.New(slog.DiscardHandler), Observer: b, Joins: true,
		}
		b.first = append(b.first, b.m.Inventory.Disks...)
		rack = append(rack, b)
		return b
	}
	add(1, true, r.rng.IntN(2) == 0) // one empty disk
	second := add(2, true, false)    // an old disk beside the empty one
	third := add(4, true, false)
	add(3, false, false) // production
	switch r.rng.IntN(4) {
	case 0: // a maker that repeats UUIDs
		second.m.Inventory.UUID = rack[0].m.Inventory.UUID
	case 1: // four cards, each of which it may netboot from
		for n := range 2 {
			nic := third.m.Inventory.NICs[0]
			nic.Name, nic.MAC = fmt.Sprintf("ens2f%d", n), machine.MAC(fmt.Sprintf("52:54:00:e%d:00:04", n))
			third.m.Inventory.NICs = append(third.m.Inventory.NICs, nic)
		}
	}
	if r.rng.IntN(3) == 0 {
		steps := []string{wire.StepDisk, wire.StepPartition, wire.StepImage, wire.StepIgnition, wire.StepBootloader}
		third.m.Fail = steps[r.rng.IntN(len(steps))]
	}
	return rack
}

// ownSystem says that a machine runs what was on its disk before.
func ownSystem(idle error) bool { return errors.Is(idle, simulate.ErrOwnSystem) }
