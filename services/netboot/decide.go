package netboot

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

const (
	by = "netboot" // who asks for what a machine without a key causes

	// answerLimit is the age at which an answer that binds is dropped: the
	// authority that it was committed under may have passed on.
	answerLimit = 2 * time.Second
	// decisions bounds how often a decision is made anew because the state
	// moved under it.
	decisions = 5
	// scriptCost is what a decision takes of its source's allowance.
	scriptCost = 10
)

// asker is a machine as its boot program describes it. Nothing of it is proven.
type asker struct {
	mac      machine.MAC
	uuid     string // canonical, or empty
	arch     string // iPXE's ${buildarch}: x86_64, i386 (any BIOS), arm64 …
	platform string // ${platform}: efi, pcbios
}

var (
	uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	wordForm = regexp.MustCompile(`^[a-z0-9_]{0,16}$`)
)

// parseAsker reads the query of /boot/script and /boot/grub. What is odd is left out, but for
// the hardware address: without it nothing can be decided.
func parseAsker(q url.Values) (asker, error) {
	mac, err := machine.ParseMAC(q.Get("mac"))
	if err != nil {
		return asker{}, fmt.Errorf("boot script: %w", err)
	}
	a := asker{mac: mac, uuid: strings.ToLower(q.Get("uuid")), arch: q.Get("arch"), platform: q.Get("platform")}
	if !uuidForm.MatchString(a.uuid) {
		a.uuid = ""
	}
	if !wordForm.MatchString(a.arch) {
		a.arch = "unknown"
	}
	if !wordForm.MatchString(a.platform) {
		a.platform = "unknown"
	}
	return a, nil
}

// bootable says whether the installer, which is x86-64, runs on the machine.
// A BIOS iPXE is built for i386 on every machine; an old one sends nothing.
func (a asker) bootable() bool { return a.arch == "" || a.arch == "x86_64" || a.arch == "i386" }

func (a asker) uefi() bool { return a.platform == "efi" }

func (a asker) firmware() string {
	switch a.platform {
	case "efi":
		return "UEFI"
	case "pcbios":
		return "BIOS"
	}
	return "unknown firmware"
}

// unseen says whether the state must be told of the machine before anything is
// decided: it does not know it, or not by this UUID.
func unseen(v state.View, a asker) (machine.Machine, bool) {
	m, ok := v.MachineByMAC(a.mac)
	return m, !ok || (a.uuid != "" && m.UUID != a.uuid)
}

// see makes the machine known.
func (s *Server) see(ctx context.Context, a asker) (machine.Machine, error) {
	m, unseen := unseen(s.Store.View(), a)
	if !unseen {
		return m, nil
	}
	command := state.MachineSee{MAC: a.mac, UUID: a.uuid, Via: "http.script"}
	if m.ID == "" {
		command.Text = fmt.Sprintf("Asks for its boot script: %s (%s)", a.mac, a.firmware())
	}
	result, err := s.proposeNew(ctx, by, func(id machine.ID) state.Command {
		command.ID = id
		return command
	})
	if err != nil {
		return machine.Machine{}, err
	}
	if result.Machine != nil {
		return *result.Machine, nil
	}
	m, ok := s.Store.View().MachineByMAC(a.mac)
	if !ok {
		return m, fmt.Errorf("machine %s: it was just seen, and is forgotten already", a.mac)
	}
	return m, nil
}

// at is the machine that holds the lease of an address. A lease proves nothing:
// a machine may use another's address.
func (c Config) at(view state.View, from netip.Addr, now time.Time) (machine.Machine, bool) {
	lease, ok := view.Lease(from)
	if !ok || !lease.Expires.After(now) {
		return machine.Machine{}, false
	}
	return view.MachineByMAC(lease.MAC)
}

// kernelFetched is the command by which a fetched kernel is noted.
func kernelFetched(mac machine.MAC) state.Command {
	return state.MachineSee{MAC: mac, Via: state.ViaKernel, Text: "Fetched the installer's kernel"}
}

// decide says what machine id boots next, after that decision is committed.
func (c Config) decide(ctx context.Context, id machine.ID) (machine.Machine, machine.BootDecision, error) {
	var refused *state.Refusal
	for range decisions {
		view := c.Store.View()
		m, ok := view.Machine(id)
		if !ok {
			return m, machine.BootDecision{}, fmt.Errorf("machine %s: it was forgotten meanwhile", id)
		}
		d := machine.NextBoot(&m, view.InstallIntent(id), view.Circumstances(m, c.Now()))
		_, err := c.Store.Propose(ctx, by, state.BootDecide{Machine: id, Decision: d})
		if err == nil {
			return m, d, nil
		}
		if !errors.As(err, &refused) {
			return m, d, err
		}
	}
	return machine.Machine{}, machine.BootDecision{}, fmt.Errorf("machine %s: boot decision: %w", id, refused)
}

// serveBoot answers with the script that all machines start with.
func (s *Server) serveBoot(w http.ResponseWriter, r *http.Request) error {
	base, err := s.base(s.Store.View())
	if err != nil {
		return err
	}
	writeScript(w, bootScript(base))
	return nil
}

// serveScript answers with a machine's boot decision. Every outcome but a
// request that names no machine is a script that goes on, so that no machine
// ends at a prompt.
func (s *Server) serveScript(l language) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		a, err := parseAsker(r.URL.Query())
		if err != nil {
			return status(http.StatusBadRequest, err)
		}
		view := s.Store.View()
		base, err := s.base(view)
		if err != nil {
			return err
		}
		began := s.Now()
		ctx, cancel := context.WithTimeout(r.Context(), answerLimit)
		defer cancel()
		m, d, err := func() (machine.Machine, machine.BootDecision, error) {
			m, err := s.see(ctx, a)
			if err != nil {
				return m, machine.BootDecision{}, err
			}
			return s.decide(ctx, m.ID)
		}()
		if took := s.Now().Sub(began); err == nil && took > answerLimit {
			err = fmt.Errorf("machine %s: the commit of its boot decision took %v", m.ID, took.Round(time.Millisecond))
		}
		if err != nil {
			s.Logger.Warn("boot script", "mac", a.mac, "error", err)
			writeScript(w, l.wait(base, "the boot service could not decide just now", s.probablyOrdered(a)))
			return nil
		}
		s.Logger.Info("boot script", "machine", m.ID, "mac", a.mac, "boots", d.Kind, "reason", d.Reason)
		writeScript(w, s.scriptFor(l, base, view, a, m, d))
		return nil
	}
}

// probablyOrdered says whether something is ordered for the machine, as far as this
// replica knows: no decision may be made of it.
func (s *Server) probablyOrdered(a asker) bool {
	view := s.Store.View()
	m, ok := view.MachineByMAC(a.mac)
	return ok && ordered(machine.NextBoot(&m, view.InstallIntent(m.ID), view.Circumstances(m, s.Now())))
}

// scriptFor is the script of a decision that is committed.
func (s *Server) scriptFor(l language, base string, view state.View, a asker, m machine.Machine, d machine.BootDecision) string {
	site, _ := view.Site() // without one nothing was decided
	b := boot{base: base, who: called(m, a), mac: a.mac, uefi: a.uefi(), decision: d, emulated: site.Emulated}
	if d.Kind == machine.BootLocal {
		b.leave = site.Netboot.Filled().LeaveBIOS
		if b.uefi {
			b.leave = site.Netboot.Filled().LeaveUEFI
		}
		return l.local(b)
	}
	if !a.bootable() {
		return l.refused("there is no installer for " + a.arch + " machines")
	}
	var err error
	if b.kernel, b.initrd, err = s.installer(view); err != nil {
		s.Logger.Error("boot script", "machine", m.ID, "error", err)
		return l.wait(base, "the installer is not available", ordered(d))
	}
	return l.installer(b)
}

// called is the machine's name for whoever stands before it.
func called(m machine.Machine, a asker) string {
	if m.Name != "" {
		return m.Name
	}
	return string(a.mac)
}

// installer finds the digests of the installer's kernel and initrd.
func (s *Server) installer(view state.View) (kernel, initrd string, err error) {
	image, ok := view.Image("installer")
	if !ok {
		return "", "", errors.New("no installer is published: wait until the boot service has read its images")
	}
	files, err := s.Blobs.Files(image.Digest)
	if err != nil {
		return "", "", fmt.Errorf("installer %s: %w", image.Digest, err)
	}
	if kernel, initrd = digestOf(files, fileKernel), digestOf(files, fileInitrd); kernel == "" || initrd == "" {
		return "", "", fmt.Errorf("installer %s: it lacks %s or %s: build the images again", image.Digest, fileKernel, fileInitrd)
	}
	return kernel, initrd, nil
}

func digestOf(files []wire.File, name string) string {
	for _, f := range files {
		if f.Name == name {
			return f.Digest
		}
	}
	return ""
}

// proposeNew proposes a command that may make a machine, under a new ID. An ID
// that exists is refused, which 2^32 of them make rare: another is tried.
func (s *Server) proposeNew(ctx context.Context, by string, command func(machine.ID) state.Command) (result state.Result, err error) {
	for range 3 {
		id := machine.NewID()
		if _, taken := s.Store.View().Machine(id); taken {
			continue
		}
		return s.Store.Propose(ctx, by, command(id))
	}
	return result, errors.New("no free machine ID was found: ask again")
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails, by its contract
	return hex.EncodeToString(b)
}
