package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
)

func (o *options) machines() *cobra.Command {
	return &cobra.Command{
		Use: "machines", Short: "List machines", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd.Context(), o, cmd.OutOrStdout(), "/api/machines", nil, writeMachines)
		},
	}
}

func writeMachines(w io.Writer, list api.List[api.Machine]) error {
	if len(list.Items) == 0 {
		_, err := fmt.Fprintln(w, "No machine was seen yet. Set one to boot from the network on a link that the site file names.")
		return err
	}
	t := table(w, "ID", "NAME", "PHASE", "PROFILE", "ADDRESS", "MAC", "WHAT", "SEEN", "REASON")
	for _, m := range list.Items {
		row(t, string(m.ID), m.Name, string(m.Phase), m.Profile, address(m.Machine), mac(m.Machine), hardware(m.Inventory),
			ago(m.LastSeen), m.Reason)
	}
	return t.Flush()
}

func (o *options) machine() *cobra.Command {
	return &cobra.Command{
		Use: "machine ID", Short: "Show one machine: by ID, name, MAC, UUID or serial number", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return show(cmd.Context(), o, cmd.OutOrStdout(), machinePath(args[0], ""), nil, writeMachine)
		},
	}
}

func writeMachine(w io.Writer, m api.Machine) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, clean(value)) // errors are kept by Flush
		}
	}
	line("ID", string(m.ID))
	line("Name", m.Name)
	line("Phase", string(m.Phase))
	line("Reason", m.Reason)
	line("Waits for", m.WaitingFor)
	line("Profile", m.Profile)
	line("Address", address(m.Machine))
	line("UUID", m.UUID)
	for _, a := range m.MACs {
		line("MAC", string(a))
	}
	if i := m.Inventory; i != nil {
		line("Hardware", strings.TrimSpace(i.Manufacturer+" "+i.Product))
		line("Serial number", i.Serial)
		line("Firmware", firmware(i))
		line("Processor", fmt.Sprintf("%s, %d threads", i.CPU.Model, i.CPU.Threads))
		line("Memory", size(i.MemoryBytes))
		for _, d := range i.Disks {
			line("Disk", fmt.Sprintf("%s %s %s %s serial %q: %s", d.Path, d.Transport, size(d.Bytes), d.Model, d.Serial, d.Contents))
		}
		for _, n := range i.NICs {
			line("NIC", fmt.Sprintf("%s %s %s", n.Name, n.MAC, n.Driver))
		}
	}
	if i := m.Install; i != nil {
		line("Install", fmt.Sprintf("%s is %s, epoch %d; %s", i.ID, i.Status, i.Epoch, i.Reason))
	}
	for _, a := range m.Actions {
		if a.Allowed {
			line("Possible", fmt.Sprintf("rackseed %s %s", a.Name, m.ID))
		}
	}
	return t.Flush()
}

func (o *options) approve() *cobra.Command {
	var in api.ApproveRequest
	var disk machine.DiskHint
	c := &cobra.Command{
		Use: "approve ID", Short: "Order a waiting machine's install", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Disk = hint(disk)
			return act(cmd.Context(), o, cmd.OutOrStdout(), machinePath(args[0], "/approve"), in, writeMachine)
		},
	}
	c.Flags().StringVar(&in.Name, "name", "", "host name")
	c.Flags().StringVar(&in.Profile, "profile", "", "profile")
	c.Flags().StringVar(&in.Address, "address", "", "static address")
	diskFlags(c, &disk)
	return c
}

func (o *options) retry() *cobra.Command {
	var disk machine.DiskHint
	c := &cobra.Command{
		Use: "retry ID", Short: "Let a machine's failed install begin again", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return act(cmd.Context(), o, cmd.OutOrStdout(), machinePath(args[0], "/retry"), api.RetryRequest{Disk: hint(disk)}, writeMachine)
		},
	}
	diskFlags(c, &disk)
	return c
}

func (o *options) revoke() *cobra.Command {
	var in api.RevokeRequest
	c := &cobra.Command{
		Use: "revoke ID", Short: "Take a machine's approval back: its install stops where it is", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return act(cmd.Context(), o, cmd.OutOrStdout(), machinePath(args[0], "/revoke"), in, writeMachine)
		},
	}
	c.Flags().StringVar(&in.Reason, "reason", "", "why, for the timeline")
	return c
}

func (o *options) forget() *cobra.Command {
	return &cobra.Command{
		Use: "forget ID", Short: "Forget a machine; it is discovered anew when it netboots", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			return c.Call(cmd.Context(), "POST", machinePath(args[0], "/forget"), nil, nil, nil)
		},
	}
}

func diskFlags(c *cobra.Command, d *machine.DiskHint) {
	c.Flags().StringVar(&d.Serial, "disk-serial", "", "install on the disk with this serial number")
	c.Flags().StringVar(&d.WWN, "disk-wwn", "", "install on the disk with this world wide name")
	c.Flags().StringVar(&d.Path, "disk-path", "", "install on this device; not stable, prefer the serial number")
}

func hint(d machine.DiskHint) *machine.DiskHint {
	if d == (machine.DiskHint{}) {
		return nil
	}
	return &d
}

func address(m machine.Machine) string {
	if !m.Address.IsValid() {
		return ""
	}
	return m.Address.String()
}

func mac(m machine.Machine) string {
	if len(m.MACs) == 0 {
		return ""
	}
	return string(m.MACs[0])
}

func hardware(i *machine.Inventory) string {
	if i == nil {
		return ""
	}
	return fmt.Sprintf("%d CPU, %s, %d disks", i.CPU.Threads, size(i.MemoryBytes), len(i.Disks))
}

func firmware(i *machine.Inventory) string {
	if i.SecureBoot {
		return i.Firmware + ", Secure Boot"
	}
	return i.Firmware
}

func size(bytes uint64) string {
	switch {
	case bytes >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
	default:
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
}

func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return time.Since(t).Round(time.Second).String() + " ago"
}

func table(w io.Writer, head ...string) *tabwriter.Writer {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	row(t, head...)
	return t
}

// row writes a row of a table; its error is kept by Flush.
func row(t io.Writer, cells ...string) {
	for i, c := range cells {
		if cells[i] = clean(c); cells[i] == "" {
			cells[i] = "-"
		}
	}
	fmt.Fprintln(t, strings.Join(cells, "\t"))
}

// clean takes from a machine's words what would command the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0:
			return '�'
		}
		return r
	}, s)
}
