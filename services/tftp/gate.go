package tftp

import (
	"context"
	"net/netip"
	"sync"
)

// gate limits how many transfers run at once, in all and from one source. Who
// is one too many from its source is refused; the others wait for their turn,
// as many as may wait.
type gate struct {
	slots     chan struct{} // one element for each running transfer
	perSource int
	mu        sync.Mutex
	inside    map[netip.Addr]int // running and waiting, by source
	waiting   int
	maxWait   int
}

func newGate(total, perSource, waiting int) *gate {
	return &gate{slots: make(chan struct{}, total), perSource: perSource, inside: map[netip.Addr]int{}, maxWait: waiting}
}

// enter waits until a transfer may run, at most as long as ctx. leave must be
// called after it. The error is errBusy.
func (g *gate) enter(ctx context.Context, source netip.Addr) (leave func(), err error) {
	g.mu.Lock()
	if g.inside[source] >= g.perSource || g.waiting >= g.maxWait {
		g.mu.Unlock()
		return nil, errBusy
	}
	g.inside[source]++
	g.waiting++
	g.mu.Unlock()
	select {
	case g.slots <- struct{}{}:
	case <-ctx.Done():
		err = errBusy
	}
	g.mu.Lock()
	g.waiting--
	g.mu.Unlock()
	if err != nil {
		g.forget(source)
		return nil, err
	}
	return func() {
		<-g.slots
		g.forget(source)
	}, nil
}

func (g *gate) forget(source netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside[source]--; g.inside[source] == 0 {
		delete(g.inside, source)
	}
}
