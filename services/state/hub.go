package state

import "sync"

// hub tells readers that tables changed after the version they read. memdb's
// own watch channels are one a table, and waiting for one of several takes a
// goroutine that lives until something changes; here each set of tables that
// is waited for has one channel, so nothing can leak.
type hub struct {
	mu      sync.Mutex
	count   uint64         // versions published
	changed map[int]uint64 // by a table's bit number: the last version that changed it
	waiting map[tableSet]chan struct{}
	any     chan struct{} // closed by the next version, whatever it changed
}

func newHub() *hub {
	return &hub{changed: map[int]uint64{}, waiting: map[tableSet]chan struct{}{}, any: make(chan struct{})}
}

// closed is what a reader gets who is late already.
var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// publish counts a version, has it stored, and wakes who waits for its tables.
func (h *hub) publish(changed tableSet, store func(count uint64)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count++
	store(h.count)
	for bit := range catalog {
		if changed&(1<<bit) != 0 {
			h.changed[bit] = h.count
		}
	}
	close(h.any)
	h.any = make(chan struct{})
	for tables, c := range h.waiting {
		if tables&changed != 0 {
			close(c)
			delete(h.waiting, tables)
		}
	}
}

// wait returns a channel that is closed once one of the tables differs from
// what it was in version count.
func (h *hub) wait(tables tableSet, count uint64) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	for bit := range catalog {
		if tables&(1<<bit) != 0 && h.changed[bit] > count {
			return closed
		}
	}
	c := h.waiting[tables]
	if c == nil {
		c = make(chan struct{})
		h.waiting[tables] = c
	}
	return c
}

// next returns a channel that is closed once there is a version after count.
func (h *hub) next(count uint64) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.count > count {
		return closed
	}
	return h.any
}
