package cli

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
)

// forFlag is how long something is opened; the boot service's choice unless set.
type forFlag struct{ long time.Duration }

func (f *forFlag) add(c *cobra.Command) {
	c.Flags().Var(f, "for", "how long, as 30m or 2h; 2h without it")
}

func (f *forFlag) Type() string { return "duration" }

func (f *forFlag) String() string {
	if f.long == 0 {
		return "" // no default to show
	}
	return span(f.long)
}

func (f *forFlag) Set(text string) error {
	long, err := time.ParseDuration(text)
	if err != nil || long <= 0 {
		return errors.New("expected how long, as 30m or 2h")
	}
	f.long = long
	return nil
}

func (f *forFlag) request() api.ForRequest {
	if f.long == 0 {
		return api.ForRequest{}
	}
	d := machine.Duration(f.long)
	return api.ForRequest{For: &d}
}

func (o *options) discovery() *cobra.Command {
	var long forFlag
	open := &cobra.Command{
		Use: "open", Short: "Open the window for a time: any machine that netboots is looked at", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return act(cmd.Context(), o, cmd.OutOrStdout(), "/api/discovery/open", long.request(), writeDiscovery)
		},
	}
	long.add(open)
	return family("discovery", "The discovery window: when machines that nobody listed are netbooted to look at them",
		open,
		&cobra.Command{
			Use: "close", Short: "Close the window: machines that are not listed boot their own disks", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return act(cmd.Context(), o, cmd.OutOrStdout(), "/api/discovery/close", nil, writeDiscovery)
			},
		},
		&cobra.Command{
			Use: "status", Short: "Say whether the window is open, and until when", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return show(cmd.Context(), o, cmd.OutOrStdout(), "/api/discovery", nil, writeDiscovery)
			},
		})
}

func writeDiscovery(w io.Writer, d api.Discovery) error {
	_, err := fmt.Fprintln(w, discoveryText(d))
	return err
}

func discoveryText(d api.Discovery) string {
	switch {
	case d.Always:
		return "The discovery window is open: the site file keeps it so (discovery.always)."
	case d.Open:
		return fmt.Sprintf("The discovery window is open until %s, for %s more.", at(d.Until), span(time.Until(d.Until)))
	}
	return "The discovery window is closed: machines that are not listed boot their own disks."
}
