package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
)

func (o *options) approve() *cobra.Command {
	var in api.ApproveRequest
	var disk machine.DiskHint
	var dry bool
	c := o.onMachine("approve", "Order a waiting machine's install", func(cmd *cobra.Command, name string) error {
		if in.Address != "" {
			if a, err := netip.ParseAddr(in.Address); err != nil || !a.Is4() {
				return usageError{fmt.Errorf("--address %q: expected an IPv4 address, as 192.0.2.20", in.Address)}
			}
		}
		in.Disk = hint(disk)
		if dry {
			return act(cmd.Context(), o, cmd.OutOrStdout(), machinePath(name, "/plan"), in, writePlan)
		}
		if err := o.confirmApproval(cmd, name, &in); err != nil {
			return err
		}
		return act(cmd.Context(), o, cmd.OutOrStdout(), machinePath(name, "/approve"), in, writeMachine)
	})
	c.Long += `

What is on the disk is lost. Unless the disk is empty, that must be confirmed:
at a terminal you are asked, naming it; elsewhere --erase must say what is on
the disk, word for word as rackseed machine shows it.`
	f := c.Flags()
	f.StringVar(&in.Name, "name", "", "host name; the next free node-N without it")
	f.StringVar(&in.Profile, "profile", "", "profile; chosen as the site file says without it")
	f.StringVar(&in.Address, "address", "", "static address; a free one without it")
	f.BoolVar(&dry, "dry-run", false, "only show what would be done")
	completeWith(c, "profile", o.profileNames)
	diskFlags(c, &disk, &in.Erase)
	return c
}

func writePlan(w io.Writer, p api.Plan) error {
	var f facts
	f.add("Name", p.Name)
	f.add("Profile", fmt.Sprintf("%s (%s): %s", p.Profile.Name, p.Profile.Role, p.ProfileWhy))
	f.add("Address", p.Address.String())
	f.add("Image", p.Image)
	f.add("Disk", describe(p.Disk))
	f.add("Is lost", cmp.Or(p.Erase, "nothing: the disk is empty, or holds an install that was cut off"))
	if p.Starts {
		f.add("Cluster", "it starts the cluster")
	}
	return f.flush(w)
}

// confirmApproval asks the person at the terminal whether what is on the disk
// may be lost, unless the command line says so. Where nobody can be asked, the
// boot service refuses what was not confirmed.
func (o *options) confirmApproval(cmd *cobra.Command, name string, in *api.ApproveRequest) error {
	a := newAsker(cmd)
	if _, ok := a.terminal(); !ok || in.Erase != "" {
		return nil
	}
	c, err := o.connect()
	if err != nil {
		return err
	}
	var p api.Plan
	if err := c.Call(cmd.Context(), http.MethodPost, machinePath(name, "/plan"), nil, in, &p); err != nil {
		return err
	}
	in.Session = p.Session
	if p.Erase == "" {
		return nil
	}
	if err := writePlan(a.out, p); err != nil {
		return err
	}
	if err := a.loss(p.Disk, p.Erase); err != nil {
		return err
	}
	in.Disk, in.Erase = &p.Disk.Hint, p.Erase
	return nil
}

// confirmRetry does the same for a retry that names another disk.
func (o *options) confirmRetry(cmd *cobra.Command, name string, in *api.RetryRequest) error {
	a := newAsker(cmd)
	if _, ok := a.terminal(); !ok || in.Erase != "" || in.Disk == nil {
		return nil
	}
	c, err := o.connect()
	if err != nil {
		return err
	}
	var m api.Machine
	if err := c.Call(cmd.Context(), http.MethodGet, machinePath(name, ""), nil, nil, &m); err != nil {
		return err
	}
	var named []api.DiskChoice
	for _, d := range m.Disks {
		if in.Disk.Matches(d.Disk) {
			named = append(named, d)
		}
	}
	if len(named) != 1 || named[0].Erase == "" {
		return nil // the boot service says what is wrong
	}
	if err := a.loss(named[0], named[0].Erase); err != nil {
		return err
	}
	in.Disk, in.Erase = &named[0].Hint, named[0].Erase
	return nil
}

// loss asks whether what is on a disk may be lost.
func (a *asker) loss(d api.DiskChoice, contents string) error {
	fmt.Fprintf(a.out, "\nDisk %s\nholds: %s\n", clean(describe(d)), clean(contents))
	var answer string
	if err := a.fill(&answer, "It is lost for good. Erase it? (yes/no)"); err != nil {
		return err
	}
	if answer != "yes" {
		return errors.New("nothing was ordered: what is on the disk stays")
	}
	return nil
}

func diskFlags(c *cobra.Command, d *machine.DiskHint, erase *string) {
	f := c.Flags()
	f.StringVar(&d.Serial, "disk-serial", "", "install on the disk with this serial number")
	f.StringVar(&d.WWN, "disk-wwn", "", "install on the disk with this world wide name")
	f.StringVar(&d.Model, "disk-model", "", "install on the disk of this model; a glob, as 'SAMSUNG MZ7*'")
	f.StringVar(&d.Transport, "disk-transport", "", "install on the disk that is attached so: nvme, sata, sas, virtio …")
	f.StringVar(&d.Path, "disk-path", "", "install on this device; not stable, prefer the serial number")
	f.TextVar(&d.MinSize, "disk-min-size", machine.Size(0), "install on the disk of at least this size, as 400GB")
	f.TextVar(&d.MaxSize, "disk-max-size", machine.Size(0), "install on the disk of at most this size, as 500GB")
	f.StringVar(erase, "erase", "", "what is on the disk and may be lost, word for word")
}

func hint(d machine.DiskHint) *machine.DiskHint {
	if d == (machine.DiskHint{}) {
		return nil
	}
	return &d
}
