package netboot

import (
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/rackseed/rackseed/services/bounded"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

// serveSession opens an installer session. The key that signs is the one that
// the request carries: it says who asks from now on, and nothing about who the
// machine is; that, an operator approves.
func (s *Server) serveSession(w http.ResponseWriter, r *http.Request) error {
	body, key, err := s.verify(w, r, maxSession)
	if err != nil {
		if codeOf(err) == http.StatusRequestEntityTooLarge {
			// Whose it is was not read: the lease of its source says.
			if m, ok := s.at(s.Store.View(), bounded.Source(r.RemoteAddr), s.Now()); ok {
				s.sessionRefused(r.Context(), m.MACs, m.UUID, err)
			}
		}
		return err
	}
	var q wire.SessionRequest
	if err := readJSON(body, &q); err != nil {
		return err
	}
	if !ed25519.PublicKey(key).Equal(ed25519.PublicKey(q.SignKey)) {
		return status(http.StatusUnauthorized, fmt.Errorf("session: %w", wire.ErrUnsigned))
	}
	if _, err := ecdh.X25519().NewPublicKey(q.SealKey); err != nil {
		return status(http.StatusBadRequest, fmt.Errorf("session: sealing key: %w", err))
	}
	if err := checkInventory(&q.Inventory); err != nil {
		return status(http.StatusBadRequest, fmt.Errorf("session: %w", err))
	}
	session := machine.Session{ID: "s-" + randomHex(8), SignKey: q.SignKey, SealKey: q.SealKey, Opened: s.Now().UTC()}
	ctx, cancel := context.WithTimeout(r.Context(), proposeLimit)
	defer cancel()
	_, err = s.proposeNew(ctx, "installer", func(id machine.ID) state.Command {
		return state.SessionOpen{NewID: id, Session: session, Inventory: q.Inventory}
	})
	if err != nil {
		if large := state.TooLarge(q.Inventory); large != nil {
			s.sessionRefused(ctx, q.Inventory.Addresses(), q.Inventory.UUID, large)
		}
		return err
	}
	// Not the session just made: a repeated request has the first one's.
	m, ok := s.Store.View().MachineBySignKey(key)
	if !ok || m.Session == nil {
		return status(http.StatusConflict, errUnknownKey)
	}
	s.Logger.Info("installer session", "machine", m.ID, "session", m.Session.ID, "number", m.Session.Number, "installer", fmt.Sprintf("%.64q", q.Version))
	return writeJSON(w, wire.SessionReply{Session: m.Session.ID, Machine: m.ID})
}

// sessionRefused notes that a machine's installer came with what is not taken, so
// that it is not sent to the installer again and again.
func (s *Server) sessionRefused(ctx context.Context, macs []machine.MAC, uuid string, why error) {
	macs = macs[:min(len(macs), 16)] // one of them is what it netbooted by
	ctx, cancel := context.WithTimeout(ctx, proposeLimit)
	defer cancel()
	_, err := s.Store.Propose(ctx, by, state.SessionRefuse{MACs: macs, UUID: uuid, Why: why.Error()})
	var refused *state.Refusal
	if err != nil && !errors.As(err, &refused) { // it is noted when it comes again
		s.Logger.Warn("a refused installer could not be noted", "macs", macs, "error", err)
	}
}

// checkInventory canonicalises what the installer found, and says what the
// machine cannot be known by.
func checkInventory(i *machine.Inventory) error {
	i.UUID = strings.ToLower(i.UUID)
	if i.UUID != "" && !uuidForm.MatchString(i.UUID) {
		return fmt.Errorf("inventory: UUID %.64q: 8-4-4-4-12 hex digits are expected", i.UUID)
	}
	if len(i.NICs) == 0 && i.BootMAC == "" {
		return errors.New("inventory: no network interface: a machine is known by its hardware addresses")
	}
	return nil
}

// serveOrder is the installer's long poll.
func (s *Server) serveOrder(w http.ResponseWriter, r *http.Request, c caller) error {
	// Only what was signed after it was taken for restarted proves that it is
	// here: that is this request, and no poll that went on meanwhile.
	view := s.Store.View()
	if _, _, back := c.machine.PhaseHeard(view.InstallIntent(c.machine.ID), view.RescueIntent(c.machine.ID)); back {
		err := s.propose(r, c.machine, state.SessionHere{Machine: c.machine.ID, Session: c.machine.Session.ID})
		var refused *state.Refusal
		if err != nil && !errors.As(err, &refused) { // else it has a newer one, as the order will say
			return err
		}
	}
	order, err := poll(s, r, []string{"machines", "intents", "site", "images"}, func(v state.View) (wire.Order, bool, error) {
		m, ok := v.MachineBySignKey(c.key)
		if !ok {
			return wire.Order{Kind: wire.OrderRevoked, Reason: errUnknownKey.Error()}, false, nil
		}
		order := installerOrder(v, m, s.Now(), s.Blobs.Files)
		if order.Kind != wire.OrderLeave {
			// Somebody asked in its name what it boots: it is to ask at once, and is
			// taken for waiting again.
			_, _, back := m.PhaseHeard(v.InstallIntent(m.ID), v.RescueIntent(m.ID))
			return order, order.Kind == wire.OrderWait && !back, nil
		}
		err := s.binding(r, m, state.SessionLeave{Machine: m.ID, Session: m.Session.ID})
		var refused *state.Refusal
		if errors.As(err, &refused) { // approved in this moment
			return wire.Order{Kind: wire.OrderWait, Reason: refused.Error()}, true, nil
		}
		return order, false, err
	})
	if err != nil {
		return err
	}
	return writeJSON(w, order)
}

// serveClaim grants the permission to write a disk, once it is committed.
func (s *Server) serveClaim(w http.ResponseWriter, r *http.Request, c caller) error {
	var q wire.ClaimRequest
	if err := readJSON(c.body, &q); err != nil {
		return err
	}
	err := s.binding(r, c.machine, state.IntentClaim{Intent: q.Intent, Epoch: q.Epoch, Session: c.machine.Session.ID, Disk: q.Disk})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) serveReport(w http.ResponseWriter, r *http.Request, c caller) error {
	var q wire.Report
	if err := readJSON(c.body, &q); err != nil {
		return err
	}
	if err := s.propose(r, c.machine, state.InstallReport{Machine: c.machine.ID, Session: c.machine.Session.ID, Report: q}); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// serveIgnition hands out the machine's Ignition, sealed to its newest session.
// That it did is an event, committed first: whoever watches the timeline sees
// each time that secrets left.
func (s *Server) serveIgnition(w http.ResponseWriter, r *http.Request, c caller) error {
	view := s.Store.View()
	intent, err := mayFetchIgnition(view, c.machine)
	if err != nil {
		return status(http.StatusConflict, fmt.Errorf("machine %s: Ignition: %w", c.machine.ID, err))
	}
	plaintext, err := s.Ignition(view, c.machine)
	if err != nil {
		return err
	}
	sealed, err := wire.Seal(c.machine.Session.SealKey, wire.IgnitionPurpose(intent.ID, intent.Epoch), plaintext)
	if err != nil {
		return fmt.Errorf("machine %s: Ignition: %w", c.machine.ID, err)
	}
	err = s.binding(r, c.machine, state.Note{
		Machine: c.machine.ID, What: "ignition.fetch", Severity: machine.Info,
		Text: fmt.Sprintf("Ignition fetched by installer session %d, sealed to it", c.machine.Session.Number),
		Data: map[string]string{"session": c.machine.Session.ID, "intent": intent.ID, "epoch": fmt.Sprint(intent.Epoch), "bytes": fmt.Sprint(len(plaintext))},
	})
	if err != nil {
		return err
	}
	// The note may have been committed after the intent had ended.
	m, ok := s.Store.View().MachineBySignKey(c.key)
	if !ok {
		return status(http.StatusForbidden, errUnknownKey)
	}
	if now, err := mayFetchIgnition(s.Store.View(), m); err != nil || now.ID != intent.ID || now.Epoch != intent.Epoch {
		return status(http.StatusConflict, fmt.Errorf("machine %s: Ignition: install intent %s has ended: ask for the order again", m.ID, intent.ID))
	}
	return writeJSON(w, sealed)
}

// serveOutput stores lines of the machine's log.
func (s *Server) serveOutput(w http.ResponseWriter, r *http.Request, c caller) error {
	var q wire.Output
	if err := readJSON(c.body, &q); err != nil {
		return err
	}
	if err := checkStream(c, q.Stream); err != nil {
		return status(http.StatusForbidden, fmt.Errorf("machine %s: output: %w", c.machine.ID, err))
	}
	ctx, cancel := context.WithTimeout(r.Context(), proposeLimit)
	defer cancel()
	next, err := s.Output.Append(ctx, c.machine.ID, q)
	if err != nil {
		return err
	}
	return writeJSON(w, wire.OutputReply{Next: next})
}

// checkStream keeps machines to their own streams: an installer's is its
// session's ID, a node's "node-" and the ID of a boot.
func checkStream(c caller, stream string) error {
	switch {
	case !c.node && stream != c.machine.Session.ID:
		return fmt.Errorf("stream %.64q is not this session's, which is %s", stream, c.machine.Session.ID)
	case c.node && !(strings.HasPrefix(stream, "node-") && uuidForm.MatchString(stream[len("node-"):])):
		return fmt.Errorf("stream %.64q: \"node-\" and the boot ID are expected", stream)
	}
	return nil
}

func (s *Server) serveNodeReport(w http.ResponseWriter, r *http.Request, c caller) error {
	var q wire.NodeReport
	if err := readJSON(c.body, &q); err != nil {
		return err
	}
	if err := s.propose(r, c.machine, state.NodeReport{Machine: c.machine.ID, Report: q}); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// serveNodeOrder is the node agent's long poll. That a node may run kubeadm
// init is committed before it is told so; that it may join, when it asks for
// what it joins by.
func (s *Server) serveNodeOrder(w http.ResponseWriter, r *http.Request, c caller) error {
	order, err := poll(s, r, []string{"machines", "intents"}, func(v state.View) (wire.NodeOrder, bool, error) {
		m, ok := v.MachineByNodeKey(c.key)
		if !ok {
			return wire.NodeOrder{}, false, status(http.StatusForbidden, errUnknownKey)
		}
		order := NodeOrder(v, m, s.Now())
		if order.Kind != wire.NodeInit {
			return order, order.Kind == wire.NodeWait, nil
		}
		err := s.binding(r, m, state.BootstrapClaim{Machine: m.ID})
		var refused *state.Refusal
		if errors.As(err, &refused) {
			return wire.NodeOrder{Kind: wire.NodeWait, Reason: refused.Error()}, true, nil
		}
		return order, false, err
	})
	if err != nil {
		return err
	}
	return writeJSON(w, order)
}
