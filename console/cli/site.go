package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/site"
)

func (o *options) status() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show how the boot service is", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd.Context(), o, cmd.OutOrStdout(), "/api/status", nil, writeStatus)
		},
	}
}

func writeStatus(w io.Writer, s api.Status) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Site %q, service address %s\n", s.Site, s.Service)
	for _, h := range s.Health {
		mark := "ok  "
		if !h.OK {
			mark = "FAIL"
		}
		fmt.Fprintf(&b, "%s  %-12s %s\n", mark, h.Name, clean(h.Text))
	}
	var phases []string
	for phase, n := range s.Machines {
		phases = append(phases, fmt.Sprintf("%d %s", n, phase))
	}
	slices.Sort(phases)
	fmt.Fprintf(&b, "Machines: %s\n", strings.Join(phases, ", "))
	for _, p := range s.SiteProblems {
		fmt.Fprintf(&b, "Site file: %s\n", clean(p))
	}
	for _, p := range s.Warnings {
		fmt.Fprintf(&b, "Warning: %s\n", clean(p))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (o *options) leases() *cobra.Command {
	return &cobra.Command{
		Use: "leases", Short: "List DHCP leases", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd.Context(), o, cmd.OutOrStdout(), "/api/leases", nil, func(w io.Writer, list api.List[machine.Lease]) error {
				t := table(w, "ADDRESS", "MAC", "MACHINE", "HOST NAME", "EXPIRES", "DECLINED")
				for _, l := range list.Items {
					declined := ""
					if l.Declined {
						declined = "yes"
					}
					row(t, l.Address.String(), string(l.MAC), string(l.Machine), l.Hostname, l.Expires.Local().Format("2006-01-02 15:04:05"), declined)
				}
				return t.Flush()
			})
		},
	}
}

func (o *options) kubeconfig() *cobra.Command {
	var server string
	c := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Write an administrator's kubeconfig to standard output",
		Long: `Write an administrator's kubeconfig to standard output.

--server is the API server's URL to put into it, where the service address
cannot be reached; the boot service is the one of the login, or RACKSEED_SERVER.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			q := url.Values{}
			if server != "" {
				q.Set("server", server)
			}
			config, err := c.Raw(cmd.Context(), http.MethodGet, "/api/kubeconfig", q, nil)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(config)
			return err
		},
	}
	c.Flags().StringVar(&server, "server", "", "API server's URL, as https://192.0.2.10:6443")
	return c
}

func (o *options) site() *cobra.Command {
	c := &cobra.Command{Use: "site", Short: "Work on the site file"}
	c.AddCommand(&cobra.Command{
		Use: "validate FILE", Short: "Check a site file; needs no boot service", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			src, err := readSite(args[0])
			if err != nil {
				return err
			}
			s, err := site.Parse(filepath.Base(args[0]), src)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is valid: site %q, service address %s, %d links, %d profiles, %d machines listed\n",
				args[0], s.Name, s.ServiceAddress, len(s.Links), len(s.Profiles), len(s.Machines))
			return err
		},
	})
	return c
}

// readSite reads a site file, and no more of it than one can be.
func readSite(path string) (src []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(io.LimitReader(f, site.MaxBytes+1))
}
