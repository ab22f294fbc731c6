package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
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
		Use: "status", Short: "Show how the boot service is; ends with 1 if a check of it fails", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return judge(cmd.Context(), o, cmd.OutOrStdout(), "/api/status", writeStatus, unhealthy)
		},
	}
}

// unhealthy names the checks of the boot service that fail: not those that wait for
// their turn, or are slow.
func unhealthy(s api.Status) error {
	var failed []string
	if s.Site != "" && s.Leads == "" {
		failed = append(failed, "no replica leads")
	}
	for _, h := range s.Health {
		if !h.OK && !h.Kind.Passing() {
			failed = append(failed, h.Name)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return fmt.Errorf("the boot service is not well: %s", strings.Join(failed, ", "))
}

func writeStatus(w io.Writer, s api.Status) error {
	var b strings.Builder
	if s.Site == "" {
		b.WriteString("No valid site file was applied yet: no machine is served.\n")
	} else {
		fmt.Fprintf(&b, "Site %q, service address %s\n", s.Site, s.Service)
		if s.Leads == "" {
			b.WriteString("NO REPLICA LEADS, as far as this one knows: no machine is served. See rackseed handoff status\n")
		}
	}
	b.WriteString(discoveryText(s.Discovery) + "\n")
	first := map[string]string{} // part that said it, by what it said
	for _, h := range s.Health {
		mark, text := "ok", clean(h.Text)
		if !h.OK {
			mark = cmp.Or(string(h.Kind), string(api.HealthFault))
			if by := first[text]; by != "" {
				text = "as " + by
			} else {
				first[text] = h.Name
			}
		}
		fmt.Fprintf(&b, "%-9s  %-12s %s\n", clean(mark), h.Name, text)
	}
	var phases []string
	for phase, n := range s.Machines {
		phases = append(phases, fmt.Sprintf("%d %s", n, phase))
	}
	slices.Sort(phases)
	if len(phases) == 0 {
		phases = []string{"none"}
	}
	fmt.Fprintf(&b, "Machines: %s\n", strings.Join(phases, ", "))
	for _, p := range s.SiteProblems {
		fmt.Fprintf(&b, "Site file: %s\n", clean(p))
	}
	for _, p := range s.SiteWarnings {
		b.WriteString(clean(p.Warning("Site file")) + "\n")
	}
	for _, p := range s.Warnings {
		fmt.Fprintf(&b, "Warning: %s\n", clean(p.Text))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (o *options) lease() *cobra.Command {
	return family("lease", "DHCP leases", listOf(o, "List DHCP leases", "/api/leases", func(w io.Writer, list api.List[machine.Lease]) error {
		t := newTable("ADDRESS", "MAC", "MACHINE", "HOST NAME", "EXPIRES", "DECLINED")
		for _, l := range list.Items {
			declined := ""
			if l.Declined {
				declined = "yes"
			}
			t.add(l.Address.String(), string(l.MAC), string(l.Machine), l.Hostname, at(l.Expires), declined)
		}
		return t.flush(w)
	}))
}

func (o *options) profile() *cobra.Command {
	return family("profile", "What machines become", listOf(o, "List profiles, and the machines that have them or would get them", "/api/profiles", o.writeProfiles))
}

func (o *options) writeProfiles(w io.Writer, list api.List[api.ProfileUse]) error {
	head := []string{"NAME", "ROLE", "SELECTOR", "MACHINES", "WOULD GET IT"}
	if o.output == outputWide {
		head = append(head, "DISK", "LABELS", "TAINTS", "KERNEL ARGUMENTS")
	}
	t := newTable(head...)
	for _, p := range list.Items {
		selector := ""
		if !p.Selector.IsZero() {
			selector = p.Selector.String()
		}
		var have, would []string
		for _, m := range p.Machines {
			have = append(have, called(machine.Machine{ID: m.ID, Name: m.Name}))
		}
		for _, m := range p.Matches {
			would = append(would, called(machine.Machine{ID: m.ID, Name: m.Name}))
		}
		cells := []string{p.Name, string(p.Role), selector, strings.Join(have, ","), strings.Join(would, ",")}
		if o.output == outputWide {
			var labels []string
			for k, v := range p.Labels {
				labels = append(labels, k+"="+v)
			}
			slices.Sort(labels)
			cells = append(cells, p.Disk.String(), strings.Join(labels, ","), strings.Join(p.Taints, ","), strings.Join(p.KernelArguments, " "))
		}
		t.add(cells...)
	}
	return t.flush(w)
}

// listOf is the command of a family that lists things.
func listOf[T any](o *options, short, path string, text func(io.Writer, api.List[T]) error) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd.Context(), o, cmd.OutOrStdout(), path, nil, text)
		},
	}
}

func (o *options) site() *cobra.Command {
	return family("site", "The site file",
		&cobra.Command{
			Use: "validate FILE", Short: "Check a site file; needs no boot service; - is standard input", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				if args[0] == "-" {
					return o.validate(cmd.OutOrStdout(), "standard input", newInput(cmd))
				}
				return o.validateFile(cmd.OutOrStdout(), args[0])
			},
		},
		&cobra.Command{
			Use: "apply FILE", Short: "Put a site file into force, once the boot service runs on nodes: before, the appliance's file decides; - is standard input", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error { return o.applySite(cmd, args[0]) },
		},
		&cobra.Command{
			Use: "show", Short: "Show the site file in force, with defaults filled in", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return show(cmd.Context(), o, cmd.OutOrStdout(), "/api/site", nil, func(w io.Writer, s api.AppliedSite) error {
					if !s.Applied {
						return errors.New("no valid site file was ever applied: rackseed status says why")
					}
					b, err := json.Marshal(s.Site)
					if err != nil {
						return err
					}
					if _, err := fmt.Fprintln(w, "# In force. Defaults are filled in, and what operators' tokens are known by is left out."); err != nil {
						return err
					}
					return writeYAML(w, b)
				})
			},
		})
}

// applySite checks a site file here, where what is wrong has a line, and puts it
// into force.
func (o *options) applySite(cmd *cobra.Command, path string) error {
	var text []byte
	var err error
	if path == "-" {
		path = "standard input"
		text, err = io.ReadAll(io.LimitReader(newInput(cmd), site.MaxBytes+1))
	} else {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return err
	}
	if err := o.validate(cmd.OutOrStdout(), path, bytes.NewReader(text)); err != nil {
		return err
	}
	c, err := o.connect()
	if err != nil {
		return err
	}
	var check api.SiteCheck
	if err := c.Call(cmd.Context(), http.MethodPost, "/api/site/apply", nil, api.SiteText{Text: string(text)}, &check); err != nil {
		return err
	}
	if !check.Valid { // by rules that this program does not know
		list := site.Error{File: path, Problems: check.Problems}
		return fmt.Errorf("the boot service refuses it: %w", &list)
	}
	if o.plain() {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "It is in force.")
	}
	return err
}

func (o *options) validateFile(w io.Writer, path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return o.validate(w, path, f)
}

// validate checks the site file in r, and no more of it than one can be, and says
// what is wrong, a line each. path is what the file is called.
func (o *options) validate(w io.Writer, path string, r io.Reader) error {
	src, err := io.ReadAll(io.LimitReader(r, site.MaxBytes+1))
	if err != nil {
		return err
	}
	name := filepath.Base(path)
	check := api.CheckSite(name, src, o.checkProfile)
	b, err := json.Marshal(check)
	if err != nil {
		return err
	}
	err = render(o, w, b, func(w io.Writer, c api.SiteCheck) error {
		if s := c.Site; s != nil {
			_, err := fmt.Fprintf(w, "%s is valid: site %q, service address %s, %s, %s, %s listed\n", path, s.Name, s.ServiceAddress,
				count(len(s.Links), "link"), count(len(s.Profiles), "profile"), count(len(s.Machines), "machine"))
			for _, p := range c.Warnings {
				if err == nil {
					_, err = fmt.Fprintln(w, clean(p.Warning(path)))
				}
			}
			return err
		}
		list := site.Error{File: path}
		for _, p := range c.Problems {
			if _, err := fmt.Fprintln(w, clean(list.Line(p))); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && !check.Valid {
		err = fmt.Errorf("%s: %s", path, count(len(check.Problems), "problem"))
	}
	return err
}

func (o *options) supportBundle() *cobra.Command {
	return &cobra.Command{
		Use: "support-bundle FILE", Short: "Save what somebody who helps needs to know, without secrets; - is standard output", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.save(cmd, "/api/support-bundle", args[0], func(_ *os.File, n int64) (string, error) {
				return size(uint64(n)) + ". It holds names, addresses and serial numbers of machines, and no password, token or key.", nil
			})
		},
	}
}

// save downloads a path into a new file that only its owner reads, or to standard output
// (-). told looks at the file, and says of it what people are told.
func (o *options) save(cmd *cobra.Command, path, file string, told func(f *os.File, n int64) (string, error)) error {
	c, err := o.connect()
	if err != nil {
		return err
	}
	if file == "-" {
		_, err := c.Download(cmd.Context(), path, cmd.OutOrStdout())
		return err
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already, and nothing was saved: choose another name", file)
	}
	if err != nil {
		return err
	}
	n, err := c.Download(cmd.Context(), path, f)
	if err == nil {
		err = f.Sync()
	}
	text := ""
	if err == nil {
		text, err = told(f, n)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(file)) // half of it is none
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", file, text)
	return err
}
