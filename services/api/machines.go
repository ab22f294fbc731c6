package api

import (
	"context"
	"errors"
	"io/fs"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/rackseed/rackseed/services/approve"
	"github.com/rackseed/rackseed/services/events"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/netboot"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

// Actions says what people can do to a machine now, and why not. install is its
// newest install intent, bootstrap the one bootstrap intent, whosever it is;
// both may be nil. The state has the last word; this is for buttons.
func Actions(m machine.Machine, install, bootstrap *machine.Intent) []Action {
	var noApprove, noRetry, noRevoke, noForget string
	switch {
	case install.Live():
		noApprove = "it is approved already"
	case install != nil && install.Status == machine.IntentDone:
		noApprove = "it is installed: to install it anew, forget it first, then netboot it"
	case m.Session == nil || m.Inventory == nil:
		noApprove = "its installer has not reported yet: netboot it"
	case m.Phase != machine.PhaseWaiting:
		noApprove = "its installer does not wait for approval: netboot it"
	}
	if install == nil || install.Status != machine.IntentFailed {
		noRetry = "no failed install waits for a retry"
	}
	if len(revocable(m, install, bootstrap)) == 0 {
		noRevoke = "nothing is ordered that is not over"
	}
	if install.Live() {
		noForget = "an install of it is not over"
	}
	action := func(name ActionName, reason string) Action {
		return Action{Name: name, Allowed: reason == "", Reason: reason}
	}
	return []Action{action(ActionApprove, noApprove), action(ActionRetry, noRetry), action(ActionRevoke, noRevoke), action(ActionForget, noForget)}
}

// revocable are the intents that taking a machine's approval back ends: its
// install while it is not over, and its start of the cluster while it was not
// permitted yet, which would keep the cluster waiting for a machine that is not
// installed.
func revocable(m machine.Machine, install, bootstrap *machine.Intent) (ids []string) {
	if install.Live() {
		ids = append(ids, install.ID)
	}
	if bootstrap != nil && bootstrap.Machine == m.ID && bootstrap.Status == machine.IntentOpen {
		ids = append(ids, bootstrap.ID)
	}
	return ids
}

// waitingFor says why a node that is installed is not in the cluster: what its
// agent is told. "": it waits for nothing.
func waitingFor(v netboot.Orders, m machine.Machine) string {
	if m.Phase != machine.PhaseBooted {
		return ""
	}
	if b := v.Bootstrap(); b != nil && b.Machine == m.ID {
		return "" // it restarted, and the cluster is its own
	}
	order := netboot.NodeOrder(v, m)
	if order.Kind != wire.NodeWait {
		return ""
	}
	return order.Reason
}

// show is a machine as people see it.
func show(view state.View, m machine.Machine) Machine {
	install := view.InstallIntent(m.ID)
	if m.MACs == nil {
		m.MACs = []machine.MAC{}
	}
	if i := m.Inventory; i != nil && (i.Disks == nil || i.NICs == nil) {
		c := *i
		c.Disks = append([]machine.Disk{}, i.Disks...)
		c.NICs = append([]machine.NIC{}, i.NICs...)
		m.Inventory = &c
	}
	return Machine{Machine: m, Install: install, WaitingFor: waitingFor(view, m), Actions: Actions(m, install, view.Bootstrap())}
}

func (s *Server) registerMachines(api huma.API) {
	huma.Register(api, operation("machines", http.MethodGet, "/api/machines", "machines", "Machines, in the order they were seen"),
		func(context.Context, *struct{}) (*body[List[Machine]], error) {
			view := s.Store.View()
			var list []Machine
			for _, m := range view.Machines() {
				list = append(list, show(view, m))
			}
			return items(list), nil
		})
	huma.Register(api, operation("machine", http.MethodGet, "/api/machines/{id}", "machines", "One machine", http.StatusNotFound),
		func(_ context.Context, in *struct {
			ID string `path:"id" maxLength:"64" doc:"ID, name, MAC, UUID or serial number."`
		}) (*body[Machine], error) {
			view := s.Store.View()
			m, err := find(view, in.ID)
			if err != nil {
				return nil, err
			}
			return &body[Machine]{show(view, m)}, nil
		})
	huma.Register(api, operation("approve", http.MethodPost, "/api/machines/{id}/approve", "machines",
		"Order the machine's install", http.StatusNotFound, http.StatusConflict),
		func(ctx context.Context, in *struct {
			ID   string `path:"id" maxLength:"64" doc:"ID, name, MAC, UUID or serial number."`
			Body *ApproveRequest
		}) (*body[Machine], error) {
			if in.Body == nil {
				in.Body = &ApproveRequest{}
			}
			return s.approve(ctx, in.ID, *in.Body)
		})
	huma.Register(api, operation("retry", http.MethodPost, "/api/machines/{id}/retry", "machines",
		"Let a failed install begin again", http.StatusNotFound, http.StatusConflict),
		func(ctx context.Context, in *struct {
			ID   string `path:"id" maxLength:"64" doc:"ID, name, MAC, UUID or serial number."`
			Body *RetryRequest
		}) (*body[Machine], error) {
			if in.Body == nil {
				in.Body = &RetryRequest{}
			}
			return s.retry(ctx, in.ID, *in.Body)
		})
	huma.Register(api, operation("revoke", http.MethodPost, "/api/machines/{id}/revoke", "machines",
		"Take the machine's approval back, while its install is not over", http.StatusNotFound, http.StatusConflict),
		func(ctx context.Context, in *struct {
			ID   string `path:"id" maxLength:"64" doc:"ID, name, MAC, UUID or serial number."`
			Body *RevokeRequest
		}) (*body[Machine], error) {
			if in.Body == nil {
				in.Body = &RevokeRequest{}
			}
			return s.revoke(ctx, in.ID, *in.Body)
		})
	huma.Register(api, operation("forget", http.MethodPost, "/api/machines/{id}/forget", "machines",
		"Forget the machine; it is discovered anew when it netboots", http.StatusNotFound, http.StatusConflict),
		func(ctx context.Context, in *struct {
			ID string `path:"id" maxLength:"64" doc:"ID, name, MAC, UUID or serial number."`
		}) (*struct{}, error) {
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
			ID    string `path:"id" maxLength:"64" doc:"ID, name, MAC, UUID or serial number."`
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

func (s *Server) approve(ctx context.Context, id string, in ApproveRequest) (*body[Machine], error) {
	address, err := in.address()
	if err != nil {
		return nil, huma.Error422UnprocessableEntity("address: " + err.Error())
	}
	view := s.Store.View()
	m, err := find(view, id)
	if err != nil {
		return nil, err
	}
	command, err := approve.Decide(view, m, approve.Wish{Name: in.Name, Profile: in.Profile, Address: address, Disk: in.Disk}, approve.NewFresh())
	if err != nil {
		return nil, huma.Error409Conflict(err.Error())
	}
	if _, err := s.propose(ctx, command); err != nil {
		return nil, err
	}
	return s.again(m.ID)
}

func (s *Server) retry(ctx context.Context, id string, in RetryRequest) (*body[Machine], error) {
	view := s.Store.View()
	m, err := find(view, id)
	if err != nil {
		return nil, err
	}
	intent := view.InstallIntent(m.ID)
	if intent == nil {
		return nil, huma.Error409Conflict("machine " + string(m.ID) + ": no install was ever ordered: approve it")
	}
	if _, err := s.propose(ctx, state.IntentRetry{Intent: intent.ID, Disk: in.Disk}); err != nil {
		return nil, err
	}
	return s.again(m.ID)
}

func (s *Server) revoke(ctx context.Context, id string, in RevokeRequest) (*body[Machine], error) {
	view := s.Store.View()
	m, err := find(view, id)
	if err != nil {
		return nil, err
	}
	intents := revocable(m, view.InstallIntent(m.ID), view.Bootstrap())
	if len(intents) == 0 {
		return nil, huma.Error409Conflict("machine " + string(m.ID) + ": nothing is ordered that is not over; what is done cannot be revoked")
	}
	// The install first: what is most urgent. If what comes after is refused,
	// asking again does the rest.
	for _, intent := range intents {
		if _, err := s.propose(ctx, state.IntentRevoke{Intent: intent, Reason: in.Reason}); err != nil {
			return nil, err
		}
	}
	return s.again(m.ID)
}

// again shows a machine after a command changed it.
func (s *Server) again(id machine.ID) (*body[Machine], error) {
	view := s.Store.View()
	m, ok := view.Machine(id)
	if !ok {
		return nil, huma.Error404NotFound("machine " + string(id) + " was forgotten meanwhile")
	}
	return &body[Machine]{show(view, m)}, nil
}

func (s *Server) lines(ctx context.Context, c machine.Chunk) (Lines, error) {
	lines, err := s.Output.Read(ctx, c)
	if errors.Is(err, fs.ErrNotExist) {
		// A line in their place, numbered as their last: who reads on goes on.
		return Lines{Seq: c.Seq, Stream: c.Stream, First: c.Last, Lines: []string{events.Gone(c)}}, nil
	}
	if err != nil {
		return Lines{}, err
	}
	return Lines{Seq: c.Seq, Stream: c.Stream, First: c.First, Lines: lines}, nil
}
