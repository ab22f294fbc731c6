// Package desk holds the setup form on the appliance's terminals: on one at a
// time, that of whoever opened it last.
package desk

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/rackseed/rackseed/appliance/form"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/setup"
)

// Open is the word that opens the form, or takes it over. Not just any key: a
// serial port may have something at its other end that echoes what we print.
const Open = "setup"

const (
	// leaveTime is how long the last words of a form stay.
	leaveTime = 4 * time.Second
	// againPause is the least time between two times that Enter has all shown
	// anew, for the same reason.
	againPause = 10 * time.Second
	// queueLength bounds the lines that wait; more are dropped.
	queueLength = 32
)

// keys is said to whoever sits at a keyboard: the kernel knows no layout but that
// of the US, and what every address and the last answer need lies elsewhere on
// others.
const keys = "Keys are those of a US keyboard, whatever is printed on them: there / is left of\nthe right Shift key, - right of 0, and y between t and u.\n"

// Terminal is what lines are typed on, and what text goes to.
type Terminal interface {
	Name() string
	// Keyboard says that keys come from a keyboard, and not as letters.
	Keyboard() bool
	Talk(on bool)
	Say(text string)
	Again()
}

// World is what the form finds out and does.
type World interface {
	// Begin says how a form begins, or why none may: for people.
	Begin() (o form.Options, refusal string)
	Links(context.Context) ([]setup.Found, error)
	Network(ctx context.Context, l setup.Link, vlan int) ([]setup.Offer, error)
	Owners(ctx context.Context, l setup.Link, vlan int, addresses []netip.Addr) (map[netip.Addr]string, error)
	KeepLink(machine.SiteLink) error
	KeepSite(text []byte) error
	// Order is what is done about a line that is typed while no form is open, and
	// answers what to say; nil: the line says nothing of the kind.
	Order(line string) func(context.Context) string
	// Holder is told who has the form, by the terminal's name; "": nobody.
	Holder(name string)
}

// Desk holds the form.
type Desk struct {
	world World
	log   *slog.Logger
	lines chan line
	done  chan func() // outcomes, for Run's goroutine

	// What follows is Run's alone.
	form   *form.Form // nil: nobody has opened it
	holder Terminal
	cancel context.CancelFunc // ends what is being found out; nil: nothing is
	again  map[Terminal]time.Time
	busy   bool              // an order is carried out
	told   map[Terminal]bool // what came of an order, until Enter is pressed
}

type line struct {
	from Terminal
	text string
}

// New makes a desk. Run must follow.
func New(w World, log *slog.Logger) *Desk {
	return &Desk{world: w, log: log, lines: make(chan line, queueLength), done: make(chan func()), again: map[Terminal]time.Time{}, told: map[Terminal]bool{}}
}

// Line takes a line that was typed on a terminal.
func (d *Desk) Line(from Terminal, text string) {
	select {
	case d.lines <- line{from, strings.TrimSpace(text)}:
	default:
	}
}

// Run works until ctx ends.
func (d *Desk) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-d.lines:
			d.line(ctx, l)
		case f := <-d.done:
			f()
		}
	}
}

func (d *Desk) line(ctx context.Context, l line) {
	switch {
	case l.from == d.holder:
		d.answer(ctx, l.text)
	case strings.EqualFold(l.text, Open):
		d.open(ctx, l.from)
	case d.order(ctx, l):
	case l.text == "" && d.told[l.from]:
		delete(d.told, l.from)
		l.from.Talk(false)
	case l.text == "" && time.Since(d.again[l.from]) >= againPause:
		d.again[l.from] = time.Now()
		l.from.Again()
	}
}

// order carries out what a line orders, one at a time, and says whether it is an order.
func (d *Desk) order(ctx context.Context, l line) bool {
	do := d.world.Order(l.text)
	if do == nil {
		return false
	}
	l.from.Talk(true)
	if d.busy {
		l.from.Say("\nAnother order is being carried out: wait for it.\n")
		d.leave(ctx, l.from)
		return true
	}
	d.busy = true
	d.log.Info("an order was typed", "on", l.from.Name(), "order", strings.Fields(l.text)[0])
	l.from.Say("\nThis takes a while …\n")
	go func() {
		text := do(ctx)
		d.later(ctx, func() {
			d.busy, d.told[l.from] = false, true
			if l.from == d.holder {
				return // who opened the form meanwhile is not disturbed
			}
			l.from.Say("\n" + text + "\nPress Enter to go back.\n")
		})
	}()
	return true
}

// answer gives a line to the form. While something is found out only leaving is
// possible.
func (d *Desk) answer(ctx context.Context, text string) {
	if d.cancel != nil {
		switch d.form.Want().(type) {
		case form.KeepLink, form.KeepSite:
			return // it is being done
		}
		if !strings.EqualFold(text, form.Quit) {
			return
		}
		d.stop()
	}
	d.form.Answer(text)
	d.goOn(ctx)
}

// open gives the form to a terminal.
func (d *Desk) open(ctx context.Context, t Terminal) {
	if d.form == nil {
		o, refusal := d.world.Begin()
		if refusal != "" {
			t.Talk(true)
			t.Say("\n" + refusal + "\n")
			d.leave(ctx, t)
			return
		}
		d.form = form.New(o)
	}
	if d.holder != nil {
		d.holder.Say("\nThe form was taken over on " + t.Name() + ".\n")
		d.leave(ctx, d.holder)
	}
	d.log.Info("the setup form is filled in", "on", t.Name())
	d.holder = t
	t.Talk(true)
	if t.Keyboard() {
		t.Say(keys)
	}
	d.world.Holder(t.Name())
	if d.cancel != nil {
		t.Say("\n" + form.Busy(d.form.Want()) + "\n")
		return
	}
	d.goOn(ctx)
}

// leave ends a terminal's dialogue in a while, unless it has another one then.
func (d *Desk) leave(ctx context.Context, t Terminal) {
	time.AfterFunc(leaveTime, func() {
		d.later(ctx, func() {
			if t != d.holder {
				t.Talk(false)
			}
		})
	})
}

// later has f called by Run.
func (d *Desk) later(ctx context.Context, f func()) {
	select {
	case d.done <- f:
	case <-ctx.Done():
	}
}

func (d *Desk) stop() {
	d.cancel()
	d.cancel = nil
}

// goOn shows the next page, or does what the form wants before it.
func (d *Desk) goOn(ctx context.Context) {
	want := d.form.Want()
	switch w := want.(type) {
	case nil:
		p := d.form.Page()
		d.holder.Say(strings.Join(p.Lines, "\n") + "\n" + p.Prompt)
		return
	case form.Leave:
		d.holder.Say("\n" + strings.Join(w.Text, "\n") + "\n")
		d.log.Info("the setup form was left", "on", d.holder.Name(), "outcome", strings.Join(w.Text, " "))
		holder := d.holder
		d.form, d.holder = nil, nil
		d.leave(ctx, holder)
		d.world.Holder("")
		return
	}
	d.holder.Say(form.Busy(want) + "\n")
	work, cancel := context.WithCancel(ctx)
	d.cancel = cancel
	f := d.form
	go func() {
		learn := d.find(work, f, want)
		d.later(ctx, func() {
			if work.Err() != nil { // the person did not wait for it
				return
			}
			d.stop()
			learn()
			d.goOn(ctx)
		})
	}()
}

// find does what a form wants, and returns how to tell it.
func (d *Desk) find(ctx context.Context, f *form.Form, want form.Want) (learn func()) {
	switch w := want.(type) {
	case form.Links:
		found, err := d.world.Links(ctx)
		return func() { f.LearnLinks(found, err) }
	case form.Network:
		offers, err := d.world.Network(ctx, w.Link, w.VLAN)
		return func() { f.LearnNetwork(offers, err) }
	case form.Owners:
		owners, err := d.world.Owners(ctx, w.Link, w.VLAN, w.Addresses)
		return func() { f.LearnOwners(w.Addresses, owners, err) }
	case form.KeepLink:
		err := d.world.KeepLink(w.Link)
		return func() { f.LearnKept(err) }
	case form.KeepSite:
		err := d.world.KeepSite(w.Text)
		return func() { f.LearnKept(err) }
	}
	return func() {}
}
