package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/console/client"
	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
)

const servicePath = "/api/service"

func (o *options) service() *cobra.Command {
	status := func(c *cobra.Command) *cobra.Command {
		c.Args = cobra.NoArgs
		c.RunE = func(cmd *cobra.Command, _ []string) error {
			return show(cmd.Context(), o, cmd.OutOrStdout(), servicePath, nil, o.writeService)
		}
		return c
	}
	c := status(&cobra.Command{
		Use: "service", Short: "The boot service's own releases: what each replica runs, and upgrades",
		Long: `The boot service's own releases: what each replica runs, and upgrades of those on
nodes. A newer image comes by rackseed image push PATH rackseed/service, where PATH is
the folder images of a newer stick's medium. Without a command: as service status.`,
	})
	c.AddCommand(
		status(&cobra.Command{Use: "status", Short: "Say which release each replica runs, and how far a rollout is"}),
		o.serviceUpgrade(), o.serviceStop(), o.serviceKeep(),
	)
	return c
}

func (o *options) serviceUpgrade() *cobra.Command {
	var in api.UpgradeRequest
	var within time.Duration
	var yes, noWait bool
	c := &cobra.Command{
		Use: "upgrade", Short: "Have the replicas on nodes run the published image, one after another, and follow that", Args: cobra.NoArgs,
		Example: `  rackseed image push /media/rackseed/images rackseed/service
  rackseed service upgrade`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			now, err := read[api.Service](cmd.Context(), c, servicePath)
			switch {
			case err != nil:
				return err
			case !now.Ready && (in.Image == "" || now.Plan != nil && !now.Plan.Over):
				return errors.New("nothing can be rolled out: " + now.Reason)
			}
			in.Image = withoutHost(in.Image, c.Server().Host)
			if within > 0 {
				in.Within = within.String()
			}
			if !yes {
				if in.Image != "" {
					now.Published = "" // which one it is, is not known here
				}
				if err := consent(cmd, upgradeText(now), "Upgrade?"); err != nil {
					return err
				}
			}
			if noWait {
				return act(cmd.Context(), o, cmd.OutOrStdout(), servicePath+"/upgrade", in, o.writeService)
			}
			if err := c.Call(cmd.Context(), http.MethodPost, servicePath+"/upgrade", nil, in, nil); err != nil {
				return err
			}
			return o.followRollout(cmd, c)
		},
	}
	c.Flags().StringVar(&in.Image, "image", "", "name of a published image; rackseed/service without it")
	completeWith(c, "image", o.imageNames)
	c.Flags().DurationVar(&within, "within", 0, "how long a replica has to be back, before it is told its earlier image; 5m without it, more for emulated machines")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not follow it")
	return c
}

// again says whether an upgrade would try what was stopped.
func again(s api.Service) bool {
	return s.Plan != nil && s.Plan.Step == machine.RolloutStopped && s.Plan.Image == s.Published
}

// upgradeText says what an upgrade does.
func upgradeText(s api.Service) string {
	text := "The replicas on nodes run the new image one after another, the one that leads last. One that does not come back with it is told its earlier image, and the upgrade stops."
	if again(s) {
		text = fmt.Sprintf("This is the image whose upgrade was stopped: %s. ", s.Plan.Reason) + text
	}
	if s.Alone {
		text += " There is one replica: the boot service is away for about a minute."
	}
	return text
}

func (o *options) serviceStop() *cobra.Command {
	return &cobra.Command{
		Use: "stop", Short: "Stop an upgrade: the replica whose turn it is goes back, the others stay as they are", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return act(cmd.Context(), o, cmd.OutOrStdout(), servicePath+"/stop", nil, o.writeService)
		},
	}
}

func (o *options) serviceKeep() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "keep", Short: "Give the earlier images up: the cluster may use what only the new release has", Args: cobra.NoArgs,
		Long: `Give the images up that replicas ran before an upgrade. The cluster's feature level
rises once every replica, and the image it would go back to, supports a higher one:
without this command that is after the next upgrade.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				if err := consent(cmd, "No replica can go back to the release that it ran before, and the cluster may refuse that release from then on.", "Keep what runs?"); err != nil {
					return err
				}
			}
			return act(cmd.Context(), o, cmd.OutOrStdout(), servicePath+"/keep", nil, o.writeService)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// followRollout writes a line for each change of the newest rollout until it is over.
// An error says that it was stopped.
func (o *options) followRollout(cmd *cobra.Command, c *client.Client) error {
	said := ""
	return poll(cmd, c, servicePath, "the upgrade goes on; rackseed service status says how far it is, rackseed service stop stops it", func(s api.Service) (over bool, err error) {
		if s.Plan == nil {
			return true, errors.New("no upgrade is under way")
		}
		if line := rolloutLine(*s.Plan); line != said {
			said = line
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", at(time.Now()), clean(line)); err != nil {
				return true, err
			}
		}
		if s.Plan.Step == machine.RolloutStopped {
			return true, errors.New("the upgrade was stopped: " + s.Plan.Reason)
		}
		return s.Plan.Step == machine.RolloutDone, nil
	})
}

// rolloutLine is a rollout in one line.
func rolloutLine(p api.RolloutPlan) string {
	if p.Over {
		return string(p.Step) + ": " + p.Text
	}
	var say []string
	if len(p.Done) > 0 {
		say = append(say, "done: "+strings.Join(p.Done, ", "))
	}
	if p.Turn != "" {
		say = append(say, "now "+p.Turn)
	}
	for _, g := range p.Gates {
		if !g.OK {
			say = append(say, "waits for "+g.Name)
		}
	}
	return string(p.Step) + ": " + strings.Join(say, "; ")
}

func (o *options) writeService(w io.Writer, s api.Service) error {
	head := []string{"REPLICA", "RELEASE", "IMAGE", "LEVEL", "GOES BACK TO"}
	if o.output == outputWide {
		head = append(head, "ID", "TOLD TO RUN")
	}
	t := newTable(head...)
	for _, r := range s.Replicas {
		row := []string{joined(r.Name, either(r.Leads, "leads", "")), r.Release, shortDigest(r.Image), fmt.Sprint(r.Level), r.Back}
		if o.output == outputWide {
			row = append(row, r.ID, shortDigest(r.Ordered))
		}
		t.add(row...)
	}
	if err := t.flush(w); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	var f facts
	f.add("Published", shortDigest(s.Published))
	f.add("Feature level", fmt.Sprintf("%d; all support %d", s.Level, s.Supports))
	if p := s.Plan; p != nil {
		f.add("Upgrade", fmt.Sprintf("to %s, started by %s %s", shortDigest(p.Image), strings.TrimPrefix(p.By, "operator:"), ago(p.Since)))
		f.add("Step", fmt.Sprintf("%s: %s", p.Step, p.Text))
		f.add("Reason", p.Reason)
		f.add("Done", strings.Join(p.Done, ", "))
		f.add("Turn", p.Turn)
		f.add("Now", p.Doing)
		if p.Failed != "" {
			f.add("Failed", p.Failed+"; it is tried again")
		}
		if !p.Over && !p.Known {
			f.add("Waits for", "not known here yet: the replica that leads says it, at the service address")
		}
		for _, g := range p.Gates {
			f.add(either(g.OK, "Holds", "Waits for"), g.Name+": "+g.Text)
		}
		if !p.Over {
			f.add("Possible", "rackseed service stop")
		}
	}
	if s.Ready && again(s) {
		f.add("Possible", "rackseed service upgrade: tries the image again whose upgrade was stopped, which is the published one still")
	} else if s.Ready {
		f.add("Possible", "rackseed service upgrade: another image is published")
	} else if s.Plan == nil || s.Plan.Over {
		f.add("Upgrade", "cannot be started: "+s.Reason)
	}
	return f.flush(w)
}

// shortDigest is the beginning of a digest, which is enough for people.
func shortDigest(digest string) string {
	hex := strings.TrimPrefix(digest, "sha256:")
	return hex[:min(len(hex), 12)]
}
