package netboot

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/bounded"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

const (
	// grubConfigName is where grubnetx64.efi looks for its configuration, on
	// the server that it was loaded from: its built-in prefix is /grub.
	grubConfigName = "grub/grub.cfg"
	pathUEFI       = "/uefi/"
)

// firmwareRefs are the artifacts whose files firmware loads by name.
var firmwareRefs = []string{"shim", "ipxe"}

// firstPrograms are what DHCP names as the boot file, with the policy for how
// their machines go on to their own disk.
var firstPrograms = map[string]func(machine.SiteNetboot) machine.LeaveBy{
	"undionly.kpxe": func(n machine.SiteNetboot) machine.LeaveBy { return n.LeaveBIOS },
	"snponly.efi":   func(n machine.SiteNetboot) machine.LeaveBy { return n.LeaveUEFI },
	"shimx64.efi":   func(n machine.SiteNetboot) machine.LeaveBy { return n.LeaveUEFI },
}

// Firmware are the files that firmware and boot programs load by name, over
// TFTP and HTTP.
//
// A machine that boots its own disk gets no boot program, by the policy "exit":
// its firmware's network boot fails, and it tries its next boot option, which
// is what firmware does most reliably, and costs a room whose power returns
// nothing. (OVMF was seen to go on at once after a TFTP error and after a 404.)
type Firmware struct {
	Config
	rates *rates
}

// NewFirmware makes the files. Of c, Output and Ignition are not needed.
func NewFirmware(c Config) *Firmware {
	c.Limits = c.Limits.filled()
	return &Firmware{Config: c, rates: newRates(c.Limits)}
}

// Open opens a file for the client at an address. The error wraps
// fs.ErrNotExist if there is none for it. It implements tftp.Files.
func (f *Firmware) Open(ctx context.Context, from netip.Addr, name string) (io.ReadSeekCloser, error) {
	view := f.Store.View()
	if name == grubConfigName {
		base, err := f.base(view)
		if err != nil {
			return nil, err
		}
		return text{strings.NewReader(grubConfig(base))}, nil
	}
	file, err := f.find(view, name)
	if err != nil {
		return nil, err
	}
	if why, local := f.leaves(ctx, view, from, name); local {
		return nil, fmt.Errorf("%s for %s: it boots its own disk (%s): %w", name, from, why, fs.ErrNotExist)
	}
	return f.Blobs.Open(ctx, file.Digest)
}

// text is a file of a string.
type text struct{ *strings.Reader }

func (text) Close() error { return nil }

// find finds a file of the published artifacts by its name.
func (f *Firmware) find(view state.View, name string) (wire.File, error) {
	for _, ref := range firmwareRefs {
		image, ok := view.Image(ref)
		if !ok {
			continue
		}
		files, err := f.Blobs.Files(image.Digest)
		if err != nil {
			return wire.File{}, fmt.Errorf("%s %s: %w", ref, image.Digest, err)
		}
		for _, file := range files {
			if file.Name == name {
				return file, nil
			}
		}
	}
	return wire.File{}, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
}

// leaves says whether the machine at an address goes on to its own disk by
// getting no boot program, once that decision is committed, and why. Whoever
// cannot be told apart, and whose decision cannot be committed now, gets its
// boot program, and asks again from there.
func (f *Firmware) leaves(ctx context.Context, view state.View, from netip.Addr, name string) (why string, local bool) {
	site, ok := view.Site()
	policy := firstPrograms[name]
	if !ok || policy == nil {
		return "", false
	}
	if leave := policy(site.Netboot.Filled()); leave != machine.LeaveExit && leave != machine.LeaveSilence {
		return "", false
	}
	began := f.Now()
	m, ok := f.at(view, from, began)
	if !ok || machine.NextBoot(&m, view.InstallIntent(m.ID), view.Circumstances(m, began)).Kind != machine.BootLocal {
		return "", false
	}
	if !f.rates.take(from, scriptCost, began) {
		return "", false
	}
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	m, d, err := f.decide(ctx, m.ID)
	if took := f.Now().Sub(began); err == nil && took > answerLimit {
		err = fmt.Errorf("machine %s: the commit of its boot decision took %v", m.ID, took.Round(time.Millisecond))
	}
	if err != nil {
		f.Logger.Warn("boot program", "machine", m.ID, "file", name, "error", err)
		return "", false
	}
	if d.Kind != machine.BootLocal {
		return "", false
	}
	f.Logger.Info("boot program refused", "machine", m.ID, "address", from, "file", name, "boots", d.Kind, "reason", d.Reason)
	return d.Reason, true
}

// serveFirmware answers with a file by its name (UEFI HTTP boot, UEFI 2.10
// §24.7), or with the configuration of a GRUB that was loaded so.
func (s *Server) serveFirmware(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	if name == "" {
		name = strings.TrimPrefix(r.URL.Path, "/")
	}
	w.Header().Set("Cache-Control", "no-store") // the next build has other bytes under the name
	return s.send(w, r, func(ctx context.Context) (io.ReadSeekCloser, error) {
		return s.firmware.Open(ctx, bounded.Source(r.RemoteAddr), name)
	})
}

// fetched notes that a machine has the installer's kernel, once a decision: if
// nothing is heard of it then, it is at its kernel or its network that it
// hangs. The machine is known by its address alone; nothing follows from it
// but a line in its timeline.
func (s *Server) fetched(r *http.Request, digest string) {
	view, now := s.Store.View(), s.Now()
	from := bounded.Source(r.RemoteAddr)
	m, ok := s.at(view, from, now)
	if !ok {
		return
	}
	if b := view.Boot(m.ID); b.Kind == "" || b.Kind == machine.BootLocal || !b.Fetched.IsZero() {
		return
	}
	if kernel, _, err := s.installer(view); err != nil || kernel != digest {
		return
	}
	lease, _ := view.Lease(from)
	// The machine may have closed its connection; what it fetched it has.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), answerLimit)
	defer cancel()
	if _, err := s.Store.Propose(ctx, by, kernelFetched(lease.MAC)); err != nil {
		s.Logger.Warn("noting that the kernel was fetched", "machine", m.ID, "error", err)
	}
}
