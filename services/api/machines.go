package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/rackseed/rackseed/services/approve"
	"github.com/rackseed/rackseed/services/events"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/netboot"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

// Actions says what people can do to a machine now, and why not. keys are the
// site's, which may log in to a rescue shell. The state has the last word, by the
// same rules; this is for buttons.
func Actions(m machine.Machine, o machine.Orders, keys []string) []Action {
	action := func(name ActionName, no string) Action { return Action{Name: name, Allowed: no == "", Reason: no} }
	return []Action{
		action(ActionApprove, machine.NoApprove(m, o)),
		action(ActionRetry, machine.NoRetry(o)),
		action(ActionRevoke, machine.NoRevoke(m, o)),
		action(ActionForget, machine.NoForget(m, o)),
		action(ActionLook, machine.NoLook(o)),
		action(ActionRescue, machine.NoRescue(o, keys)),
	}
}

// ordersOf are the orders of a machine. bootstrap is the view's, which takes a
// search of all intents: once for all machines.
func ordersOf(view state.View, bootstrap *machine.Intent, id machine.ID) machine.Orders {
	return machine.Orders{Install: view.InstallIntent(id), Join: view.JoinIntent(id), Rescue: view.RescueIntent(id), Bootstrap: bootstrap}
}

// waitingFor says why a node that is installed is not in the cluster: what its
// agent is told. "": it waits for nothing.
func waitingFor(v netboot.Orders, m machine.Machine, now time.Time) string {
	if m.Phase != machine.PhaseBooted {
		return ""
	}
	if b := v.Bootstrap(); b != nil && b.Machine == m.ID {
		return "" // it restarted, and the cluster is its own
	}
	order := netboot.NodeOrder(v, m, now)
	if order.Kind != wire.NodeWait {
		return ""
	}
	return order.Reason
}

// expected are the machines that the site file lists and that were never seen.
func expected(site machine.Site, seen []machine.Machine) []Expected {
	list := []Expected{}
	for _, l := range site.Expected(seen) {
		list = append(list, Expected{Name: l.Name, MAC: l.MAC, UUID: l.UUID, Profile: l.Profile, Address: l.Address, Approve: l.Approve})
	}
	return list
}

// show is a machine as people see it at a time, with its orders.
func show(view state.View, m machine.Machine, o machine.Orders, now time.Time) Machine {
	site, _ := view.Site()
	if m.MACs == nil {
		m.MACs = []machine.MAC{}
	}
	if i := m.Inventory; i != nil && (i.Disks == nil || i.NICs == nil) {
		c := *i
		c.Disks = append([]machine.Disk{}, i.Disks...)
		c.NICs = append([]machine.NIC{}, i.NICs...)
		m.Inventory = &c
	}
	return Machine{
		Machine: m, Install: o.Install, Join: o.Join, Rescue: o.Rescue, Open: machine.Revocable(m, o), WaitingFor: waitingFor(view, m, now),
		Leaves: m.WaitEnds(o.Install, site.Discovery.WaitTime()), Boot: shownBoot(view.Boot(m.ID)), NextBoot: nextBoot(m, o.Install, view.Circumstances(m, now)),
		Disks: choices(m.Inventory), Actions: Actions(m, o, site.SSHKeys),
	}
}

// shownBoot is what a machine was told to boot last, nil if it was told nothing.
func shownBoot(b state.Boot) *Boot {
	if b.Kind == "" {
		return nil
	}
	return &Boot{Kind: b.Kind, Decided: b.Decided, Fetched: b.Fetched, Silent: b.Silent}
}

func nextBoot(m machine.Machine, install *machine.Intent, c machine.Circumstances) NextBoot {
	d := machine.NextBoot(&m, install, c)
	return NextBoot{Kind: d.Kind, Why: d.Reason}
}

// choices are the disks of an inventory for whoever has to choose one.
func choices(i *machine.Inventory) []DiskChoice {
	list := []DiskChoice{}
	if i == nil {
		return list
	}
	for _, d := range i.Disks {
		list = append(list, choice(i.Disks, d))
	}
	return list
}

// choice is one of the disks of a machine.
func choice(disks []machine.Disk, d machine.Disk) DiskChoice {
	c := DiskChoice{Disk: d, Hint: approve.Exactly(disks, d), Usable: true}
	if err := machine.Installable(d); err != nil {
		c.Usable, c.Reason = false, err.Error()
	}
	if d.Contents != machine.Empty {
		c.Erase = d.Contents
	}
	return c
}

// MachinePath is the path of every route about one machine. It is exported for
// huma, which looks into no other embedded struct.
type MachinePath struct {
	ID string `path:"id" maxLength:"64" doc:"ID, name, MAC, UUID or serial number."`
}

// machineRequest is such a route with a body that may be left out.
type machineRequest[T any] struct {
	MachinePath
	Body *T
}

// onMachine registers a route that does something about one machine. do gets
// the machine as it was found, and a zero T for an absent body.
func onMachine[In, Out any](s *Server, api huma.API, op huma.Operation, do func(ctx context.Context, view state.View, m machine.Machine, in In) (Out, error)) {
	huma.Register(api, op, func(ctx context.Context, in *machineRequest[In]) (*body[Out], error) {
		view := s.Store.View()
		m, err := find(view, in.ID)
		if err != nil {
			return nil, err
		}
		var request In
		if in.Body != nil {
			request = *in.Body
		}
		out, err := do(ctx, view, m, request)
		if err != nil {
			return nil, err
		}
		return &body[Out]{out}, nil
	})
}

// changeMachine registers an action on one machine, which answers with the
// machine as it is then.
func changeMachine[In any](s *Server, api huma.API, name ActionName, summary string, do func(ctx context.Context, view state.View, m machine.Machine, in In) error) {
	op := operation(string(name), http.MethodPost, "/api/machines/{id}/"+string(name), "machines", summary, http.StatusNotFound, http.StatusConflict)
	onMachine(s, api, op, func(ctx context.Context, view state.View, m machine.Machine, in In) (Machine, error) {
		if err := do(ctx, view, m, in); err != nil {
			return Machine{}, err
		}
		return s.again(m.ID)
	})
}

func (s *Server) registerMachines(api huma.API) {
	huma.Register(api, operation("machines", http.MethodGet, "/api/machines", "machines", "Machines, in the order they were seen"),
		func(context.Context, *struct{}) (*body[MachineList], error) {
			view, now := s.Store.View(), s.Now()
			bootstrap, seen := view.Bootstrap(), view.Machines()
			list := []Machine{}
			for _, m := range seen {
				list = append(list, show(view, m, ordersOf(view, bootstrap, m.ID), now))
			}
			site, _ := view.Site()
			return &body[MachineList]{MachineList{Items: list, Expected: expected(site, seen)}}, nil
		})
	huma.Register(api, operation("machine", http.MethodGet, "/api/machines/{id}", "machines", "One machine", http.StatusNotFound),
		func(_ context.Context, in *MachinePath) (*body[Machine], error) {
			view := s.Store.View()
			m, err := find(view, in.ID)
			if err != nil {
				return nil, err
			}
			return &body[Machine]{show(view, m, ordersOf(view, view.Bootstrap(), m.ID), s.Now())}, nil
		})
	huma.Register(api, operation("why", http.MethodGet, "/api/machines/{id}/why", "machines",
		"Why a machine does what it does, or nothing", http.StatusNotFound),
		func(_ context.Context, in *MachinePath) (*body[Why], error) {
			view := s.Store.View()
			m, err := find(view, in.ID)
			if err != nil {
				return nil, err
			}
			return &body[Why]{explain(factsOf(view, m, s.Status().Health, s.Now()))}, nil
		})
	onMachine(s, api, operation("plan", http.MethodPost, "/api/machines/{id}/plan", "machines",
		"What approving the machine would do; changes nothing, and looks at erase only if it is given", http.StatusNotFound, http.StatusConflict), s.plan)
	changeMachine(s, api, ActionApprove, "Order the machine's install", s.approve)
	changeMachine(s, api, ActionRetry, "Let a failed install begin again", s.retry)
	onMachine(s, api, operation(string(ActionRevoke), http.MethodPost, "/api/machines/{id}/revoke", "machines",
		"Take back what is ordered and not over: an install, the start of the cluster, a join, a rescue shell", http.StatusNotFound, http.StatusConflict), s.revoke)
	changeMachine(s, api, ActionLook, "Have the machine looked at when it netboots next, whatever is on its disks; for 0s takes that back", s.look)
	changeMachine(s, api, ActionRescue, "Have the machine boot to a shell once, for the site's SSH keys", s.rescue)
	huma.Register(api, operation("forget", http.MethodPost, "/api/machines/{id}/forget", "machines",
		"Forget the machine; it is discovered anew when it netboots", http.StatusNotFound, http.StatusConflict),
		func(ctx context.Context, in *MachinePath) (*struct{}, error) {
			m, err := find(s.Store.View(), in.ID)
			if err != nil {
				return nil, err
			}
			_, err = s.propose(ctx, state.MachineForget{Machine: m.ID})
			return nil, err
		})
	huma.Register(api, operation("output", http.MethodGet, "/api/machines/{id}/output", "machines",
		"A machine's output, in chunks, oldest first", http.StatusNotFound),
		func(ctx context.Context, in *struct {
			MachinePath
			After uint64 `query:"after" doc:"Seq of the chunk after which to begin."`
			Limit int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Number of chunks."`
		}) (*body[List[Lines]], error) {
			view := s.Store.View()
			m, err := find(view, in.ID)
			if err != nil {
				return nil, err
			}
			var list []Lines
			for _, c := range view.Chunks(m.ID, in.After, in.Limit) {
				lines, err := s.lines(ctx, c)
				if err != nil {
					return nil, huma.Error500InternalServerError(err.Error())
				}
				list = append(list, lines)
			}
			return items(list), nil
		})
}

// wish is what a request for approval asks for.
func (in ApproveRequest) wish() (approve.Wish, error) {
	address, err := in.address()
	if err != nil {
		return approve.Wish{}, huma.Error422UnprocessableEntity("address: " + err.Error())
	}
	return approve.Wish{Name: in.Name, Profile: in.Profile, Address: address, Disk: in.Disk, Erase: in.Erase, Session: in.Session}, nil
}

func (s *Server) plan(_ context.Context, view state.View, m machine.Machine, in ApproveRequest) (Plan, error) {
	wish, err := in.wish()
	if err != nil {
		return Plan{}, err
	}
	p, err := approve.Prepare(view, m, wish, approve.NewFresh())
	if err == nil && wish.Erase != "" { // somebody wants to know whether that would do
		_, err = p.Confirmed(wish.Erase)
	}
	if err != nil {
		return Plan{}, huma.Error409Conflict(err.Error())
	}
	return Plan{
		Session: p.Command.Session,
		Name:    p.Command.Name, Profile: p.Command.Profile, ProfileWhy: p.Profile.Why, Address: p.Command.Address, Image: p.Command.Image,
		Disk: choice(m.Inventory.Disks, p.Disk), Erase: p.Confirm, Starts: p.Starts,
	}, nil
}

func (s *Server) approve(ctx context.Context, view state.View, m machine.Machine, in ApproveRequest) error {
	wish, err := in.wish()
	if err != nil {
		return err
	}
	command, err := approve.Decide(view, m, wish, approve.NewFresh())
	if err != nil {
		return huma.Error409Conflict(err.Error())
	}
	_, err = s.propose(ctx, command)
	return err
}

func (s *Server) retry(ctx context.Context, view state.View, m machine.Machine, in RetryRequest) error {
	command, err := approve.Retry(view, m, approve.Wish{Disk: in.Disk, Erase: in.Erase})
	if err != nil {
		return huma.Error409Conflict(err.Error())
	}
	_, err = s.propose(ctx, command)
	return err
}

func (s *Server) revoke(ctx context.Context, view state.View, m machine.Machine, in RevokeRequest) (Revoked, error) {
	o := ordersOf(view, view.Bootstrap(), m.ID)
	if why := machine.NoRevoke(m, o); why != "" {
		return Revoked{}, huma.Error409Conflict("machine " + called(m) + ": " + why)
	}
	out := Revoked{Revoked: []machine.Intent{}}
	// The install first: what is most urgent. If what comes after is refused,
	// asking again does the rest.
	for _, intent := range machine.Revocable(m, o) {
		result, err := s.propose(ctx, state.IntentRevoke{Intent: intent.ID, Reason: in.Reason})
		var problem *huma.ErrorModel
		if errors.As(err, &problem) && len(out.Revoked) > 0 {
			problem.Detail = "taken back: " + orderList(out.Revoked) + "; but not the " + intent.Kind.Words() + ": " + problem.Detail
		}
		if err != nil {
			return Revoked{}, err
		}
		if result.Intent != nil {
			intent = *result.Intent
		}
		out.Revoked = append(out.Revoked, intent)
	}
	var err error
	out.Machine, err = s.again(m.ID)
	return out, err
}

// orderList names orders in a sentence.
func orderList(list []machine.Intent) string {
	words := make([]string, len(list))
	for n, i := range list {
		words[n] = fmt.Sprintf("the %s (%s)", i.Kind.Words(), i.ID)
	}
	return strings.Join(words, ", ")
}

func (s *Server) look(ctx context.Context, _ state.View, m machine.Machine, in ForRequest) error {
	_, err := s.propose(ctx, state.MachineInvite{Machine: m.ID, Until: in.until(s.Now())})
	return err
}

func (s *Server) rescue(ctx context.Context, _ state.View, m machine.Machine, _ RescueRequest) error {
	_, err := s.propose(ctx, state.RescueOpen{Machine: m.ID, Intent: "r-" + randomHex(8)})
	return err
}

// again shows a machine after a command changed it.
func (s *Server) again(id machine.ID) (Machine, error) {
	view := s.Store.View()
	m, ok := view.Machine(id)
	if !ok {
		return Machine{}, huma.Error404NotFound("machine " + string(id) + " was forgotten meanwhile")
	}
	return show(view, m, ordersOf(view, view.Bootstrap(), m.ID), s.Now()), nil
}

func (s *Server) lines(ctx context.Context, c machine.Chunk) (Lines, error) {
	lines, err := s.Output.Read(ctx, c)
	if errors.Is(err, fs.ErrNotExist) {
		// A line in their place, numbered as their last: who reads on goes on.
		return Lines{Seq: c.Seq, Stream: c.Stream, First: c.Last, Time: c.Time, Lines: []string{events.Gone(c)}}, nil
	}
	if err != nil {
		return Lines{}, err
	}
	return Lines{Seq: c.Seq, Stream: c.Stream, First: c.First, Time: c.Time, Lines: lines}, nil
}
