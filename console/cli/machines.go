package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
)

const whichMachine = "A machine is named by ID, name, MAC, UUID or serial number."

func (o *options) machines() *cobra.Command {
	var watch bool
	c := &cobra.Command{
		Use: "machines", Short: "List machines; -w goes on as they change", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				return unlessInterrupted(cmd.Context(), o.watchMachines(cmd))
			}
			return show(cmd.Context(), o, cmd.OutOrStdout(), "/api/machines", nil, func(w io.Writer, list api.MachineList) error {
				if len(list.Items)+len(list.Expected) == 0 {
					return noMachines(w)
				}
				t := newTable(o.machineHead()...)
				for _, m := range list.Items {
					t.add(o.machineRow(m)...)
				}
				for _, e := range list.Expected {
					t.add(o.expectedRow(e)...)
				}
				return t.flush(w)
			})
		},
	}
	c.Flags().BoolVarP(&watch, "watch", "w", false, "go on: a machine is listed again when it changes")
	return c
}

func noMachines(w io.Writer) error {
	_, err := fmt.Fprintln(w, "No machine was seen yet. Set one to boot from the network on a link that the site file names.")
	return err
}

func (o *options) machineHead() []string {
	if o.output == outputWide {
		return []string{"NAME", "ID", "PHASE", "PROFILE", "SERIAL", "ASSET TAG", "ADDRESS", "MACS", "UUID", "WHAT", "NEXT BOOT", "SEEN", "REASON"}
	}
	return []string{"NAME", "PHASE", "MAC", "SERIAL", "ASSET TAG", "ADDRESS", "REASON"}
}

// watchTable has room for what machines become while they are watched, so that
// columns stay where they are. A longer name or serial number moves them once.
func (o *options) watchTable() *table {
	room := map[string]string{
		"NAME": "node-1234567", "PHASE": string(machine.PhaseInstalling), "PROFILE": "control-plane", "SERIAL": "123456789012",
		"ADDRESS": "255.255.255.255", "MAC": "52:54:00:00:00:00", "MACS": "52:54:00:00:00:00", "UUID": "00000000-0000-0000-0000-000000000000",
		"WHAT": "128 CPU, 1024.0 GiB, 12 disks", "NEXT BOOT": string(machine.BootDiscovery), "SEEN": "59m59s ago",
	}
	head := append([]string{"TIME"}, o.machineHead()...)
	t := newTable(head...)
	for _, name := range head {
		t.widths = append(t.widths, len(room[name]))
	}
	return t
}

func (o *options) machineRow(m api.Machine) []string {
	i := m.Inventory
	if i == nil {
		i = &machine.Inventory{}
	}
	reason := cmp.Or(m.WaitingFor, m.Reason)
	if reason == "" && m.Phase == machine.PhaseSeen {
		reason = fmt.Sprintf("boots %s next: %s", m.NextBoot.Kind, m.NextBoot.Why)
	}
	if o.output != outputWide {
		return []string{called(m.Machine), string(m.Phase), string(bootMAC(m)), i.Serial, i.AssetTag, address(m.Machine), reason}
	}
	return []string{m.Name, string(m.ID), string(m.Phase), m.Profile, i.Serial, i.AssetTag, address(m.Machine), macs(m.Machine), m.UUID,
		hardware(m.Inventory), string(m.NextBoot.Kind), ago(m.LastSeen), reason}
}

// bootMAC is the address that a machine netbooted by, else the first that it was
// seen with.
func bootMAC(m api.Machine) machine.MAC {
	if m.Inventory != nil && m.Inventory.BootMAC != "" {
		return m.Inventory.BootMAC
	}
	if len(m.MACs) == 0 {
		return ""
	}
	return m.MACs[0]
}

// phaseExpected and phaseForgotten stand where machines have their phase.
const (
	phaseExpected  = "expected"
	phaseForgotten = "forgotten"
)

// expectedRow is a machine that the site file lists and that was never seen.
func (o *options) expectedRow(e api.Expected) []string {
	const reason = "in the site file's list, not seen yet"
	var a string
	if e.Address.IsValid() {
		a = e.Address.String()
	}
	if o.output != outputWide {
		return []string{cmp.Or(e.Name, string(e.MAC), e.UUID), phaseExpected, string(e.MAC), "", "", a, reason}
	}
	return []string{e.Name, "", phaseExpected, e.Profile, "", "", a, string(e.MAC), e.UUID, "", "", "", reason}
}

// forgottenRow is a machine that was forgotten: its name is, too.
func (o *options) forgottenRow(id machine.ID) []string {
	if o.output != outputWide {
		return []string{string(id), phaseForgotten}
	}
	return []string{"", string(id), phaseForgotten}
}

// watchMachines lists all machines and whom the site file lists besides, and each
// one again when it changes, with the time.
func (o *options) watchMachines(cmd *cobra.Command) error {
	c, err := o.connect()
	if err != nil {
		return err
	}
	w, t := cmd.OutOrStdout(), o.watchTable()
	row := func(cells ...string) { t.add(append([]string{at(time.Now())}, cells...)...) }
	listed := map[machine.ID]string{}
	// put adds a machine, unless it is listed like that.
	put := func(m api.Machine) error {
		same := m
		same.LastSeen = time.Time{} // that it was seen again is no change to list
		what := strings.Join(o.machineRow(same), "\x00")
		if !o.plain() {
			b, err := json.Marshal(same)
			if err != nil {
				return err
			}
			what = string(b)
		}
		if listed[m.ID] == what {
			return nil
		}
		listed[m.ID] = what
		if !o.plain() {
			return o.renderItem(w, m)
		}
		row(o.machineRow(m)...)
		return nil
	}
	var expected []api.Expected // that are listed
	// await adds those that are expected and not listed as that.
	await := func(now []api.Expected) error {
		for _, e := range now {
			switch {
			case slices.Contains(expected, e):
			case o.plain():
				row(o.expectedRow(e)...)
			default:
				if err := o.renderItem(w, struct {
					Phase string `json:"phase"`
					api.Expected
				}{phaseExpected, e}); err != nil {
					return err
				}
			}
		}
		expected = now
		return nil
	}
	flush := func() error {
		if o.plain() {
			return t.flush(w)
		}
		return nil
	}
	var list api.MachineList
	if err := c.Call(cmd.Context(), http.MethodGet, "/api/machines", nil, nil, &list); err != nil {
		return err
	}
	for _, m := range list.Items {
		if err := put(m); err != nil {
			return err
		}
	}
	if err := errors.Join(await(list.Expected), flush()); err != nil {
		return err
	}
	return resume(cmd.Context(), cmd.ErrOrStderr(), func(ctx context.Context, live func()) error {
		// Events are not wanted: after the newest there can be.
		return c.Stream(ctx, "/api/stream", number("after", 1<<62), func(message []byte) error {
			live()
			var m struct {
				Type     string         `json:"type"`
				Machine  api.Machine    `json:"machine"`
				ID       machine.ID     `json:"id"`
				Expected []api.Expected `json:"expected"`
			}
			if err := json.Unmarshal(message, &m); err != nil {
				return err
			}
			switch m.Type {
			case "machine":
				if err := put(m.Machine); err != nil {
					return err
				}
			case "expected":
				if err := await(m.Expected); err != nil {
					return err
				}
			case "forgotten":
				delete(listed, m.ID)
				if !o.plain() {
					return o.renderItem(w, struct {
						ID    machine.ID `json:"id"`
						Phase string     `json:"phase"`
					}{m.ID, phaseForgotten})
				}
				row(o.forgottenRow(m.ID)...)
			}
			return flush()
		})
	})
}

func (o *options) machine() *cobra.Command {
	return o.onMachine("machine", "Show one machine with all its details", func(cmd *cobra.Command, name string) error {
		return show(cmd.Context(), o, cmd.OutOrStdout(), machinePath(name, ""), nil, writeMachine)
	})
}

// onMachine makes a command about one machine.
func (o *options) onMachine(use, short string, run func(cmd *cobra.Command, name string) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " NAME", Short: short, Long: short + ".\n\n" + whichMachine, Args: cobra.ExactArgs(1), ValidArgsFunction: o.machineNames,
		RunE: func(cmd *cobra.Command, args []string) error { return run(cmd, args[0]) },
	}
}

func writeMachine(w io.Writer, m api.Machine) error {
	var f facts
	f.add("ID", string(m.ID))
	f.add("Name", m.Name)
	f.add("Phase", string(m.Phase))
	f.add("Reason", m.Reason)
	f.add("Waits for", m.WaitingFor)
	if !m.Leaves.IsZero() {
		f.add("Waits until", at(m.Leaves)+", then it goes back to its own disk")
	}
	f.add("Profile", m.Profile)
	f.add("Address", address(m.Machine))
	f.add("UUID", m.UUID)
	for _, a := range m.MACs {
		f.add("MAC", string(a))
	}
	f.addInventory(m)
	f.add("First seen", at(m.FirstSeen))
	f.add("Last seen", at(m.LastSeen))
	f.add("Told to boot", toldToBoot(m.Boot))
	f.add("Boots next", fmt.Sprintf("%s: %s", m.NextBoot.Kind, m.NextBoot.Why))
	for _, i := range []*machine.Intent{m.Install, m.Join, m.Rescue} {
		f.add(order(i))
	}
	for _, a := range m.Actions {
		if a.Allowed {
			f.add("Possible", fmt.Sprintf("rackseed %s %s", a.Name, called(m.Machine)))
		}
	}
	return f.flush(w)
}

// addInventory adds what the installer found.
func (f *facts) addInventory(m api.Machine) {
	i := m.Inventory
	if i == nil {
		return
	}
	f.add("Hardware", strings.TrimSpace(i.Manufacturer+" "+i.Product))
	f.add("Serial number", i.Serial)
	f.add("Asset tag", i.AssetTag)
	f.add("Firmware", firmware(i))
	for _, b := range i.BootOrder {
		f.add("Boot order", b)
	}
	f.add("Processor", strings.TrimPrefix(fmt.Sprintf("%s, %s", i.CPU.Model, count(i.CPU.Threads, "thread")), ", "))
	f.add("Memory", size(i.MemoryBytes))
	for _, d := range m.Disks {
		text := describe(d) + ": " + d.Contents
		if !d.Usable {
			text += " (cannot be installed on: " + d.Reason + ")"
		}
		f.add("Disk", text)
	}
	for _, n := range i.NICs {
		carrier := ""
		if !n.Carrier {
			carrier = "no carrier"
		}
		f.add("NIC", joined(n.Name, string(n.MAC), n.Driver, carrier))
	}
}

// describe names a disk by what is printed on it, and what tools call it.
func describe(d api.DiskChoice) string {
	serial, wwn := "no serial number", ""
	if d.Serial != "" {
		serial = "serial number " + d.Serial
	}
	if d.WWN != "" {
		wwn = "WWN " + d.WWN
	}
	return joined(d.Path, d.Transport, size(d.Bytes), d.Model, serial, wwn)
}

// joined joins what there is by commas.
func joined(words ...string) string {
	var some []string
	for _, w := range words {
		if w != "" {
			some = append(some, w)
		}
	}
	return strings.Join(some, ", ")
}

func toldToBoot(b *api.Boot) string {
	if b == nil {
		return ""
	}
	text := fmt.Sprintf("%s, at %s", b.Kind, at(b.Decided))
	if !b.Fetched.IsZero() {
		text += "; fetched the kernel at " + at(b.Fetched)
	}
	if b.Silent {
		text += "; silent since"
	}
	return text
}

// order is an order in words, under what it is called.
func order(i *machine.Intent) (name, value string) {
	if i == nil {
		return "", ""
	}
	name = strings.ToUpper(string(i.Kind[:1])) + string(i.Kind[1:])
	value = fmt.Sprintf("%s is %s, epoch %d", i.ID, i.Status, i.Epoch)
	if i.Disk != (machine.DiskHint{}) {
		value += ", disk with " + i.Disk.String()
	}
	if i.Erase != "" {
		value += ", may erase " + i.Erase
	}
	if i.Reason != "" {
		value += ": " + i.Reason
	}
	return name, value
}

func (o *options) why() *cobra.Command {
	return o.onMachine("why", "Explain a machine: why it does what it does, or nothing", func(cmd *cobra.Command, name string) error {
		return show(cmd.Context(), o, cmd.OutOrStdout(), machinePath(name, "/why"), nil, o.writeWhy)
	})
}

func (o *options) writeWhy(w io.Writer, y api.Why) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s): %s\n\n", called(machine.Machine{ID: y.Machine.ID, Name: y.Machine.Name}), y.Phase, clean(y.Summary))
	list := func(head string, items []string) {
		if len(items) == 0 {
			return
		}
		b.WriteString(head + "\n")
		for _, i := range items {
			b.WriteString("  - " + clean(i) + "\n")
		}
		b.WriteByte('\n')
	}
	list("Likely causes:", y.Causes)
	list("What to do:", y.Todo)
	var f facts
	f.add("Told to boot", toldToBoot(y.Boot))
	f.add("Because", y.BootWhy)
	f.add("Boots next", fmt.Sprintf("%s: %s", y.NextBoot.Kind, y.NextBoot.Why))
	f.add("Waits for", y.WaitingFor)
	if err := f.flush(&b); err != nil {
		return err
	}
	if len(y.Events) > 0 {
		b.WriteString("\nLast events:\n")
	}
	for _, e := range y.Events {
		if err := o.writeEvent(&b, e, map[machine.ID]string{y.Machine.ID: y.Machine.Name}); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (o *options) retry() *cobra.Command {
	var disk machine.DiskHint
	var erase string
	c := o.onMachine("retry", "Let a machine's failed install begin again", func(cmd *cobra.Command, name string) error {
		in := api.RetryRequest{Disk: hint(disk), Erase: erase}
		if err := o.confirmRetry(cmd, name, &in); err != nil {
			return err
		}
		return act(cmd.Context(), o, cmd.OutOrStdout(), machinePath(name, "/retry"), in, writeMachine)
	})
	diskFlags(c, &disk, &erase)
	return c
}

func (o *options) revoke() *cobra.Command {
	var in api.RevokeRequest
	c := o.onMachine("revoke", "Take back what was ordered for a machine and is not over: an install stops where it is", func(cmd *cobra.Command, name string) error {
		return act(cmd.Context(), o, cmd.OutOrStdout(), machinePath(name, "/revoke"), in, writeRevoked)
	})
	c.Flags().StringVar(&in.Reason, "reason", "", "why, for the timeline")
	return c
}

// writeRevoked says what was taken back, and what the machine is since.
func writeRevoked(w io.Writer, r api.Revoked) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Taken back from %s:\n", called(r.Machine.Machine))
	for _, i := range r.Revoked {
		fmt.Fprintf(&b, "  %s %s\n", i.Kind.Words(), i.ID)
	}
	fmt.Fprintf(&b, "It is %s now", r.Phase)
	if r.Reason != "" {
		b.WriteString(": " + clean(r.Reason))
	}
	_, err := io.WriteString(w, b.String()+".\n")
	return err
}

func (o *options) forgetMachine() *cobra.Command {
	var yes bool
	f := o.onMachine("forget", "Forget a machine; it is discovered anew when it netboots", func(cmd *cobra.Command, name string) error {
		c, err := o.connect()
		if err != nil {
			return err
		}
		var m api.Machine
		if err := c.Call(cmd.Context(), http.MethodGet, machinePath(name, ""), nil, nil, &m); err != nil {
			return err
		}
		// A node's key goes with it: it can report nothing any more, and is only
		// known again once it was installed anew.
		if m.Install != nil && m.Install.Status == machine.IntentDone && !yes {
			told := fmt.Sprintf("%s is installed (%s). Forgotten, it is a stranger until it is installed anew.", called(m.Machine), m.Phase)
			if err := consent(cmd, told, "Forget it?"); err != nil {
				return err
			}
		}
		if err := c.Call(cmd.Context(), http.MethodPost, machinePath(string(m.ID), "/forget"), nil, nil, nil); err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.ErrOrStderr(), "%s is forgotten; it is discovered anew when it netboots and the discovery window is open.\n", clean(called(m.Machine)))
		return err
	})
	f.Flags().BoolVar(&yes, "yes", false, "do not ask, also for an installed machine")
	return f
}

func (o *options) look() *cobra.Command {
	var long forFlag
	var cancel bool
	c := o.onMachine("look", "Have a machine looked at when it netboots next, whatever is on its disks", func(cmd *cobra.Command, name string) error {
		in := long.request()
		if cancel {
			in.For = new(machine.Duration)
		}
		return act(cmd.Context(), o, cmd.OutOrStdout(), machinePath(name, "/look"), in, func(w io.Writer, m api.Machine) error {
			text := fmt.Sprintf("%s is looked at when it netboots, until %s: restart it.", called(m.Machine), at(m.Invited))
			if m.Invited.IsZero() {
				text = fmt.Sprintf("%s boots next: %s: %s.", called(m.Machine), m.NextBoot.Kind, m.NextBoot.Why)
			}
			_, err := fmt.Fprintln(w, clean(text))
			return err
		})
	})
	long.add(c)
	c.Flags().BoolVar(&cancel, "cancel", false, "take that back")
	c.MarkFlagsMutuallyExclusive("for", "cancel")
	return c
}

func (o *options) rescue() *cobra.Command {
	return o.onMachine("rescue", "Have a machine boot to a shell once, for the site's SSH keys", func(cmd *cobra.Command, name string) error {
		return act(cmd.Context(), o, cmd.OutOrStdout(), machinePath(name, "/rescue"), nil, func(w io.Writer, m api.Machine) error {
			_, err := fmt.Fprintf(w, "%s boots to a rescue shell when it netboots: restart it, then log in as root by SSH. rackseed revoke takes that back until then.\n", clean(called(m.Machine)))
			return err
		})
	})
}

// called is a machine's name, or its ID while it has none.
func called(m machine.Machine) string { return cmp.Or(m.Name, string(m.ID)) }

func address(m machine.Machine) string {
	if !m.Address.IsValid() {
		return ""
	}
	return m.Address.String()
}

func macs(m machine.Machine) string {
	words := make([]string, len(m.MACs))
	for i, a := range m.MACs {
		words[i] = string(a)
	}
	return strings.Join(words, ",")
}

func hardware(i *machine.Inventory) string {
	if i == nil {
		return ""
	}
	return fmt.Sprintf("%d CPU, %s, %s", i.CPU.Threads, size(i.MemoryBytes), count(len(i.Disks), "disk"))
}

func firmware(i *machine.Inventory) string {
	if i.SecureBoot {
		return i.Firmware + ", Secure Boot"
	}
	return i.Firmware
}
