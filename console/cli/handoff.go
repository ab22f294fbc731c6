package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/console/client"
	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
)

const (
	handoffPath = "/api/handoff"
	// handoffNews is how often numbers alone are news: how far behind, how much to
	// copy.
	handoffNews = 10 * time.Second
	// namedGates are those that a line names.
	namedGates = 3
	// destroyed is what confirms that the appliance is.
	destroyed = "destroyed"
)

func (o *options) handoff() *cobra.Command {
	var follow bool
	// status runs the family's first command, and the family alone.
	status := func(c *cobra.Command) *cobra.Command {
		c.Args = cobra.NoArgs
		c.RunE = func(cmd *cobra.Command, _ []string) error {
			if !follow {
				return judge(cmd.Context(), o, cmd.OutOrStdout(), handoffPath, o.writeHandoff, unled)
			}
			c, err := o.connect()
			if err != nil {
				return err
			}
			return o.followHandoff(cmd, c)
		}
		c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until it is over: a line for each change; ends with 0 if it is done, 1 if it was given up")
		return c
	}
	c := status(&cobra.Command{
		Use: "handoff", Short: "The boot service's move into the cluster, after which the stick can be pulled",
		Long: `The boot service's move from the appliance into the cluster, after which the stick
can be pulled: replicas start on nodes, fetch all that the appliance has, and take
over one after another. Without a command: how far it is, as handoff status.`,
	})
	c.AddCommand(
		status(&cobra.Command{Use: "status", Short: "Say where the boot service runs, how far its move is, and what it waits for"}),
		o.handoffStart(), o.handoffAbort(), o.handoffLost(), o.handoffResume(), o.handoffRemove(),
	)
	return c
}

func (o *options) handoffStart() *cobra.Command {
	var in api.HandoffRequest
	var yes, noWait bool
	c := &cobra.Command{
		Use: "start", Short: "Move the boot service onto nodes of the cluster, and follow that",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("nodes are named by --node: rackseed handoff start --node %s", strings.Join(args, " --node "))}
			}
			return nil
		},
		Example: `  rackseed handoff start
  rackseed handoff start --node node-1 --node node-2 --node node-3`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, now, err := o.handoffNow(cmd.Context())
			if err != nil {
				return err
			}
			if err := mayStart(now, in.Nodes); err != nil {
				return err
			}
			if len(in.Nodes) == 0 {
				in.Nodes = now.Targets // what is asked about is what is done
			}
			if !yes {
				if err := consent(cmd, startText(now, in.Nodes), "Start it?"); err != nil {
					return err
				}
			}
			if noWait {
				return act(cmd.Context(), o, cmd.OutOrStdout(), handoffPath+"/start", in, o.writeHandoff)
			}
			if err := c.Call(cmd.Context(), http.MethodPost, handoffPath+"/start", nil, in, nil); err != nil {
				return err
			}
			return o.followHandoff(cmd, c)
		},
	}
	c.Flags().StringSliceVar(&in.Nodes, "node", nil, "a node to move to, 1, 3 or 5 of them (of three one may fail, of one none); where nodes carry the boot service already, one that shall carry it too; without it three that are Ready, or one where there are fewer")
	completeWith(c, "node", o.nodeNames)
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not follow it")
	return c
}

// handoffNow is how far it is, before something is done about it.
func (o *options) handoffNow(ctx context.Context) (c *client.Client, now api.Handoff, err error) {
	if c, err = o.connect(); err != nil {
		return nil, now, err
	}
	err = c.Call(ctx, http.MethodGet, handoffPath, nil, nil, &now)
	return c, now, err
}

// handoffUnderWay is the plan that is carried out now.
func (o *options) handoffUnderWay(ctx context.Context) (api.HandoffPlan, error) {
	_, now, err := o.handoffNow(ctx)
	if err == nil && (now.Plan == nil || now.Plan.Over) {
		err = errors.New("no handoff is under way")
	}
	if err != nil {
		return api.HandoffPlan{}, err
	}
	return *now.Plan, nil
}

// mayStart refuses what the boot service would refuse, before anything is asked.
func mayStart(h api.Handoff, nodes []string) error {
	switch {
	case h.Plan != nil && !h.Plan.Over:
		return fmt.Errorf("a handoff is under way (%s): rackseed handoff status -f follows it", h.Plan.Step)
	case (len(nodes) == 0 || appliance(h)) && !h.Ready:
		return errors.New("no handoff can be started: " + h.Reason)
	}
	for i, name := range nodes {
		if slices.Contains(nodes[:i], name) {
			return fmt.Errorf("handoff: %s is named twice", name)
		}
		at := slices.IndexFunc(h.Nodes, func(n api.HandoffNode) bool { return n.Name == name || string(n.Machine) == name })
		if at < 0 {
			continue // it may be beyond those that are told
		}
		if why := h.Nodes[at].Why; why != "" {
			return errors.New("handoff: " + why)
		}
	}
	for _, c := range h.Choices {
		if c.Nodes == len(nodes) && c.Refused {
			return errors.New("handoff: " + c.Text)
		}
	}
	return nil
}

// appliance says whether the appliance leads, and so is to leave.
func appliance(h api.Handoff) bool {
	return slices.ContainsFunc(h.Replicas, func(r api.Replica) bool { return r.Leads && r.Machine == "" })
}

// choiceText is what it means that so many nodes are chosen; "": it is not known.
func choiceText(h api.Handoff, nodes int) string {
	for _, c := range h.Choices {
		if c.Nodes == nodes {
			return " " + strings.ToUpper(c.Text[:1]) + c.Text[1:] + "."
		}
	}
	return ""
}

const rootlessText = "The site file has no sshKeys: NOBODY IS ROOT ON A NODE, which recover and break-glass need once the stick is pulled. Add one while a replica leads: nodes take it within two minutes."

// startText says what a start does.
func startText(h api.Handoff, nodes []string) string {
	list := strings.Join(nodes, ", ")
	if slices.ContainsFunc(h.Replicas, func(r api.Replica) bool { return r.Leads && r.Machine != "" }) {
		return fmt.Sprintf("Replicas of the boot service start on %s, besides those that there are.", list) + choiceText(h, len(nodes))
	}
	text := fmt.Sprintf("The boot service moves to %s. Replicas start there, fetch the log and the images, and take over; then the stick can be pulled. "+
		"It takes some minutes, in which no new install begins; what runs goes on. Until it is sealing it can be given up: rackseed handoff abort. "+
		"Until a node leads, the stick alone knows everything: save a backup first (rackseed backup FILE).", list)
	if h.Rootless {
		text += " " + rootlessText
	}
	return text + choiceText(h, len(nodes))
}

func (o *options) handoffAbort() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "abort", Short: "Give a handoff up, until it is sealing: the appliance goes on alone", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, now, err := o.handoffNow(cmd.Context())
			if err != nil {
				return err
			}
			// Where it cannot be, the server says why.
			if !yes && now.Plan != nil && slices.Contains(now.Plan.Actions, api.HandoffAbort) {
				told := "The nodes' replicas leave again, and the appliance goes on alone. What was copied stays on their disks for another try."
				if now.Plan.From == "" {
					told = "The replicas that were added leave again. What was copied stays on their disks for another try."
				}
				if err := consent(cmd, told, "Give it up?"); err != nil {
					return err
				}
			}
			return act(cmd.Context(), o, cmd.OutOrStdout(), handoffPath+"/abort", nil, o.writeHandoff)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

const lostText = "The handoff goes forward with the nodes that are there, and cannot be given up any more. The appliance is removed without its word that it is over for it. Its stick does not know, and must never be booted again as it is: " +
	"destroy it, or erase all of it (writing the image over it keeps what it knew): dd if=/dev/zero of=/dev/sdX bs=4M"

func (o *options) handoffLost() *cobra.Command {
	var confirm string
	c := &cobra.Command{
		Use: "lost", Short: "Declare the appliance destroyed, where a handoff is under way and a node leads", Args: cobra.NoArgs,
		Long: `Declare the appliance destroyed, at any step of a handoff in which a node leads.
If it can be plugged in and booted again, do that instead: the handoff goes on by
itself.

` + lostText,
		RunE: func(cmd *cobra.Command, _ []string) error {
			plan, err := o.handoffUnderWay(cmd.Context())
			if err != nil {
				return err
			}
			if !slices.Contains(plan.Actions, api.HandoffLost) {
				return fmt.Errorf("the appliance can be declared destroyed, once, while a node leads and the appliance is to leave: see rackseed handoff status; this handoff is at %s", plan.Step)
			}
			a := newAsker(cmd)
			if _, ok := a.terminal(); !ok && confirm == "" {
				return usageError{fmt.Errorf("--confirm %s is needed. %s", destroyed, lostText)}
			}
			if confirm == "" {
				fmt.Fprintln(a.out, lostText)
				if err := a.fill(&confirm, "Type "+destroyed+" to go on"); err != nil {
					return err
				}
			}
			if confirm != destroyed {
				return fmt.Errorf("nothing was done: only %s does it", destroyed)
			}
			return act(cmd.Context(), o, cmd.OutOrStdout(), handoffPath+"/lost", nil, o.writeHandoff)
		},
	}
	c.Flags().StringVar(&confirm, "confirm", "", destroyed+": the stick is, or is never booted again as it is; asked for at a terminal")
	return c
}

func (o *options) handoffResume() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "resume", Short: "Let a handoff that is being given up go forward without who is away", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			plan, err := o.handoffUnderWay(cmd.Context())
			if err != nil {
				return err
			}
			switch {
			case slices.Contains(plan.Actions, api.HandoffResume):
			case plan.Step == machine.HandoffAborting:
				return errors.New("the appliance leads again, and gives the handoff up: when that is over, another one can be started")
			default:
				return fmt.Errorf("this handoff is at %s, and goes on by itself: only one that is being given up while the appliance is away can be resumed; see rackseed handoff status", plan.Step)
			}
			if !yes {
				told := "The handoff goes forward without the appliance and the nodes that are away, and is not given up by itself any more."
				if plan.From == "" {
					told = "The handoff goes forward without the nodes that are away, and is not given up by itself any more."
				}
				if err := consent(cmd, told, "Go forward?"); err != nil {
					return err
				}
			}
			return act(cmd.Context(), o, cmd.OutOrStdout(), handoffPath+"/resume", nil, o.writeHandoff)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// consent tells the person at the terminal what will be, and asks. Only yes is
// one; elsewhere the command line must say --yes.
func consent(cmd *cobra.Command, told, question string) error {
	a := newAsker(cmd)
	if _, ok := a.terminal(); !ok {
		return fmt.Errorf("%s: say --yes if that is meant", strings.TrimSuffix(told, "."))
	}
	fmt.Fprintln(a.out, clean(told))
	var answer string
	if err := a.fill(&answer, question+" (yes/no)"); err != nil {
		return err
	}
	if answer != "yes" {
		return errors.New("nothing was done: only yes does it")
	}
	return nil
}

func (o *options) handoffRemove() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "remove NAME", Short: "Take a replica of the boot service away for good, as one whose node is dead", Args: cobra.ExactArgs(1),
		Long: `Take a replica of the boot service away for good, as one whose node is dead or
lost its disk. It never comes back under its ID; handoff start --node puts another
one on the same node or on another.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, now, err := o.handoffNow(cmd.Context())
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(now.Replicas, func(r api.Replica) bool { return r.ID == args[0] || r.Name == args[0] }) {
				return fmt.Errorf("there is no replica %s: see rackseed handoff status", args[0])
			}
			if !yes {
				if err := consent(cmd, removeText(now, args[0]), "Take it away?"); err != nil {
					return err
				}
			}
			return act(cmd.Context(), o, cmd.OutOrStdout(), handoffPath+"/remove", api.RemoveRequest{Replica: args[0]}, o.writeHandoff)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// removeText says what is lost by taking a replica away.
func removeText(h api.Handoff, name string) string {
	text := fmt.Sprintf("The replica of %s leaves for good; if its node only restarts, wait for it instead. Its disk keeps the data keys: erase it.", name)
	voters, votes := 0, false
	for _, r := range h.Replicas {
		if r.Voter {
			voters++
			votes = votes || r.ID == name || r.Name == name
		}
	}
	if left := voters - 1; votes && left > 0 {
		text += fmt.Sprintf(" It loses its vote: %d voters are left, of which %d may fail, until another one is started: rackseed handoff start --node NAME.", left, (left-1)/2)
	}
	return text
}

// nodeNames completes the name of a node that is Ready.
func (o *options) nodeNames(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	words, directive := names(cmd.Context(), o, "/api/machines", func(m api.Machine) cobra.Completion {
		if m.Phase != machine.PhaseReady {
			return ""
		}
		return cobra.CompletionWithDesc(called(m.Machine), address(m.Machine))
	})
	return slices.DeleteFunc(words, func(w cobra.Completion) bool { return w == "" }), directive
}

// handoffLine is a plan in one line; key is the part of it whose change is news at
// once.
func handoffLine(p api.HandoffPlan) (line, key string) {
	var say, keys, waits []string
	add := func(what, text string) {
		if text != "" {
			say, keys = append(say, what+text), append(keys, what+text)
		}
	}
	if p.Over {
		add("", p.Text)
	}
	add("now ", p.Doing)
	add("failed and is tried again: ", p.Failed)
	for _, g := range p.Gates {
		if !g.OK {
			waits, keys = append(waits, g.Name+": "+g.Text), append(keys, g.Name)
		}
	}
	if more := len(waits) - namedGates; more > 0 {
		waits = append(waits[:namedGates], fmt.Sprintf("%d more", more))
	}
	if len(waits) > 0 {
		say = append(say, "waits for "+strings.Join(waits, ", "))
	}
	if len(say) == 0 {
		add("", p.Text)
	}
	return fmt.Sprintf("%-12s  %s", p.Step, clean(strings.Join(say, "; "))), string(p.Step) + "\x00" + strings.Join(keys, "\x00")
}

// handoffNewsOf finds what is new for somebody who follows a handoff.
type handoffNewsOf struct {
	line, key string
	at        time.Time // of the last line
}

// next is the line to write now; "": none.
func (n *handoffNewsOf) next(p api.HandoffPlan, now time.Time) string {
	line, key := handoffLine(p)
	if line == n.line || key == n.key && now.Sub(n.at) < handoffNews {
		return ""
	}
	n.line, n.key, n.at = line, key, now
	return line
}

// followHandoff writes a line for each change of the newest handoff until it is
// over. An error says that it was given up.
func (o *options) followHandoff(cmd *cobra.Command, c *client.Client) error {
	var news handoffNewsOf
	return poll(cmd, c, handoffPath, "the handoff goes on; rackseed handoff status says how far it is, rackseed handoff abort gives it up", func(h api.Handoff) (over bool, err error) {
		if h.Plan == nil {
			return true, errors.New("no handoff is under way, and there was none: rackseed handoff start starts one")
		}
		if line := news.next(*h.Plan, time.Now()); line != "" {
			if err := o.writeNews(cmd.OutOrStdout(), h, line); err != nil {
				return true, err
			}
		}
		if h.Plan.Over {
			return true, o.endOfHandoff(cmd.OutOrStdout(), h)
		}
		return false, nil
	})
}

func (o *options) writeNews(w io.Writer, h api.Handoff, line string) error {
	if !o.plain() {
		return o.renderItem(w, h)
	}
	_, err := fmt.Fprintf(w, "%s  %s\n", at(time.Now()), line)
	return err
}

// endOfHandoff says how it ended.
func (o *options) endOfHandoff(w io.Writer, h api.Handoff) error {
	if h.Plan.Step != machine.HandoffDone {
		return errors.New("the handoff was given up: " + cmp.Or(h.Plan.Reason, "no reason was told"))
	}
	if text := unplugText(h); text != "" && o.plain() {
		_, err := fmt.Fprintln(w, clean(text))
		return err
	}
	return nil
}

// noLeaderText is what to do where no replica leads, as far as the one knows that answers.
const noLeaderText = "no replica leads, so that no machine is served: more than half of the voters above must run and reach each other; switch the others on and look at their cables. Only if they are lost for ever: docs/handoff.md, \"When the majority is lost\""

// unplugText says that the stick can be pulled; "": it must not.
func unplugText(h api.Handoff) string {
	if !h.SafeToUnplug {
		return ""
	}
	var on []string
	for _, r := range h.Replicas {
		on = append(on, r.Name)
	}
	slices.Sort(on)
	text := fmt.Sprintf("Safe to unplug. The boot service runs on %s. The stick can be pulled.", strings.Join(on, ", "))
	if h.Plan != nil && h.Plan.Lost {
		text += " It was declared destroyed and NEVER TOLD: erase all of it or destroy it, and never boot it again."
	}
	return text
}

func (o *options) writeHandoff(w io.Writer, h api.Handoff) error {
	if err := o.writeReplicas(w, h.Replicas); err != nil {
		return err
	}
	var f facts
	if leaderless(h) {
		f.add("NO LEADER", noLeaderText)
	}
	if p := h.Plan; p != nil {
		var to []string
		for _, t := range p.Targets {
			to = append(to, t.Name)
		}
		f.add("Handoff", fmt.Sprintf("to %s, started by %s", strings.Join(to, ", "), strings.TrimPrefix(p.By, "operator:")))
		f.add("Step", fmt.Sprintf("%s: %s", p.Step, p.Text))
		f.add("Since", fmt.Sprintf("%s, %s", at(p.Since), ago(p.Since)))
		f.add("Reason", p.Reason)
		f.add("Now", p.Doing)
		if p.Failed != "" {
			f.add("Failed", p.Failed+"; it is tried again")
		}
		if !p.Over && !p.Known {
			f.add("Waits for", either(leaderless(h), "a leader", "not known here yet: the replica that leads says it, at the service address"))
		}
		for _, g := range p.Gates {
			f.add(either(g.OK, "Holds", "Waits for"), g.Name+": "+g.Text)
		}
		for _, a := range p.Actions {
			if a == api.HandoffLost && !away(h) {
				continue
			}
			f.add("Possible", "rackseed handoff "+string(a))
		}
	}
	f.add("Recovery key", either(h.RecoveryKey || len(h.Replicas) == 0, "", "none was made: rackseed recovery-key"))
	f.add("Site file", either(h.Auto == "", "", "handoff: auto: "+h.Auto))
	switch text := unplugText(h); {
	case h.Ready:
		f.add("Possible", fmt.Sprintf("rackseed handoff start: it moves to %s", strings.Join(h.Targets, ", ")))
	case text != "":
		f.add("Stick", text)
	case leaderless(h):
	case h.Plan == nil || h.Plan.Over:
		f.add("Handoff", "cannot be started: "+h.Reason)
	}
	if len(f.rows) > 0 && len(h.Replicas) > 0 {
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
	}
	return f.flush(w)
}

// unled is the error that no replica leads.
func unled(h api.Handoff) error {
	if leaderless(h) {
		return errors.New("no replica leads")
	}
	return nil
}

// leaderless says whether no replica leads, as far as the one knows that answers.
func leaderless(h api.Handoff) bool {
	return len(h.Replicas) > 0 && !slices.ContainsFunc(h.Replicas, func(r api.Replica) bool { return r.Leads })
}

func either(ok bool, yes, no string) string {
	if ok {
		return yes
	}
	return no
}

func (o *options) writeReplicas(w io.Writer, list []api.Replica) error {
	if len(list) == 0 {
		return nil
	}
	head := []string{"REPLICA", "ROLE", "ENDPOINT", "SECRETS", "BEHIND", "TO COPY"}
	if o.output == outputWide {
		head = append(head, "ID", "RELEASE", "JOINED")
	}
	t := newTable(head...)
	for _, r := range list {
		var behind, missing string
		if r.Seen && r.Reachable {
			behind, missing = fmt.Sprint(r.Behind), size(uint64(r.Missing))
		}
		row := []string{r.Name, replicaRole(r), r.Endpoint, protected(r.Secrets), behind, missing}
		if o.output == outputWide {
			row = append(row, r.ID, r.Release, at(r.Joined))
		}
		t.add(row...)
	}
	return t.flush(w)
}

// protected says how safe the secrets on a replica's disk are.
func protected(by string) string { return either(by == "plaintext", "not protected (plaintext)", by) }

// replicaRole is what a replica counts for.
func replicaRole(r api.Replica) string {
	role := "joining, no member yet"
	switch {
	case r.Voter:
		role = "voter"
	case r.Member:
		role = "member without a vote"
	}
	return joined(either(r.Leads, "leads", ""), role, either(r.Seen && !r.Reachable, "cannot be reached", ""))
}

// away says that the appliance cannot be reached: only then it can be destroyed.
func away(h api.Handoff) bool {
	return slices.ContainsFunc(h.Replicas, func(r api.Replica) bool { return r.Machine == "" && r.Seen && !r.Reachable })
}
