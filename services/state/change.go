package state

import (
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/go-memdb"

	"github.com/rackseed/rackseed/services/machine"
)

// Refusal is the rules' no. It is the same on every replica.
type Refusal struct{ Text string }

func (r *Refusal) Error() string { return r.Text }

func refuse(format string, a ...any) error { return &Refusal{fmt.Sprintf(format, a...)} }

// row is a row with its table.
type row struct {
	table string
	value any
}

// change is what one command does, gathered before any of it is written: so a
// refusal, at whatever point, changes nothing.
type change struct {
	tables // as they were before the command
	at     time.Time
	by     string
	index  uint64 // of the entry
	term   uint64

	machines []*machineRow // copies, in the order they were first edited
	evicted  machine.ID    // made room for a new one
	intents  []*intentRow
	puts     []row
	gone     []row
	events   []machine.Event // without Seq
	// merged machines: what happened to the first is the second's past.
	merged [][2]machine.ID

	// For the answer.
	machine       *machineRow
	intent        *intentRow
	replicaAnswer *machine.Replica
	raised        uint64 // the cluster's feature level from now on; 0: as it is
}

// edit returns the copy of a machine that will be written.
func (c *change) edit(r *machineRow) *machineRow {
	for _, m := range c.machines {
		if m.Machine.ID == r.Machine.ID {
			return m
		}
	}
	m := *r
	m.Machine.MACs = slices.Clone(r.Machine.MACs)
	c.machines = append(c.machines, &m)
	return &m
}

// editIntent returns the copy of an intent that will be written.
func (c *change) editIntent(r *intentRow) *intentRow {
	for _, i := range c.intents {
		if i.Intent.ID == r.Intent.ID {
			return i
		}
	}
	i := *r
	i.Intent.Changed = c.at
	c.intents = append(c.intents, &i)
	return &i
}

func (c *change) put(table string, value any)    { c.puts = append(c.puts, row{table, value}) }
func (c *change) remove(table string, value any) { c.gone = append(c.gone, row{table, value}) }

// removeMachine takes a machine away with all that was edited of it.
func (c *change) removeMachine(r *machineRow) {
	c.machines = slices.DeleteFunc(c.machines, func(m *machineRow) bool { return m.Machine.ID == r.Machine.ID })
	c.remove(tableMachines, r)
}

// event adds an event; data are names and values, empty values left out.
func (c *change) event(of machine.ID, kind string, severity machine.Severity, text string, data ...string) {
	e := machine.Event{Time: c.at, Machine: of, Kind: kind, Severity: severity, Text: text}
	for i := 0; i+1 < len(data); i += 2 {
		if data[i+1] == "" {
			continue
		}
		if e.Data == nil {
			e.Data = map[string]string{}
		}
		e.Data[data[i]] = data[i+1]
	}
	c.events = append(c.events, e)
}

// writer writes changes into one transaction.
type writer struct {
	txn     *memdb.Txn
	changed tableSet
	limit   uint64 // of events
	torn    bool   // a change was written in part
	check   *version
}

func (w *writer) tables() tables { return tables{txn: w.txn} }

// write makes a decided change; its errors are faults of this package, not of
// the command.
func (w *writer) write(c *change) error {
	for _, g := range c.gone {
		if err := w.txn.Delete(g.table, g.value); err != nil {
			return fmt.Errorf("table %s: removing a row: %w", g.table, err)
		}
		w.changed |= tableBit[g.table]
	}
	for _, m := range c.machines {
		m.Machine.MACs = slices.Clip(m.Machine.MACs)
		if err := w.insert(tableMachines, m); err != nil {
			return err
		}
	}
	for _, i := range c.intents {
		if err := w.insert(tableIntents, i); err != nil {
			return err
		}
	}
	for _, p := range c.puts {
		if err := w.insert(p.table, p.value); err != nil {
			return err
		}
	}
	for _, m := range c.merged {
		if err := w.moveEvents(m[0], m[1]); err != nil {
			return err
		}
	}
	return w.append(c.events)
}

func (w *writer) insert(table string, value any) error {
	if err := w.txn.Insert(table, value); err != nil {
		return fmt.Errorf("table %s: writing a row: %w", table, err)
	}
	w.changed |= tableBit[table]
	return nil
}

// append numbers the events, adds them, and drops the oldest over the limit.
func (w *writer) append(events []machine.Event) error {
	if len(events) == 0 {
		return nil
	}
	seq := w.tables().lastEvent()
	for i := range events {
		seq++
		events[i].Seq = seq
		if err := w.insert(tableEvents, &events[i]); err != nil {
			return err
		}
	}
	for {
		oldest, _ := must(w.txn.First(tableEvents, byID)).(*machine.Event)
		if oldest == nil || oldest.Seq+w.limit > seq {
			return nil
		}
		if err := w.txn.Delete(tableEvents, oldest); err != nil {
			return fmt.Errorf("table %s: dropping the oldest: %w", tableEvents, err)
		}
	}
}

// moveEvents gives the past of one machine to the one it turned out to be.
func (w *writer) moveEvents(from, to machine.ID) error {
	var past []*machine.Event
	under(w.tables(), tableEvents, byMachine, key(from), func(e *machine.Event) bool {
		past = append(past, e)
		return true
	})
	for _, e := range past {
		moved := *e
		moved.Machine = to
		if err := w.insert(tableEvents, &moved); err != nil {
			return err
		}
	}
	return nil
}
