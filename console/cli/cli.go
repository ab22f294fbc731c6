// Package cli is Rackseed's command line for operators. It does everything
// through the people's API, as the console does, and decides nothing.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/console/client"
)

// options are the flags that every command has.
type options struct {
	credentials
	output string
}

// Add puts the operator's commands under root.
func Add(root *cobra.Command) {
	o := &options{}
	operator := &cobra.Group{ID: "operator", Title: "For operators, through the boot service's API:"}
	root.AddGroup(operator)
	for _, c := range []*cobra.Command{
		o.setup(), o.login(), o.logout(), o.status(), o.machines(), o.machine(), o.approve(), o.retry(), o.revoke(), o.forget(),
		o.events(), o.log(), o.leases(), o.kubeconfig(), o.site(),
	} {
		c.GroupID = operator.ID
		f := c.PersistentFlags()
		if c.Name() != "kubeconfig" { // there, --server is the cluster's API server
			f.StringVar(&o.Server, "server", "", "boot service's URL, as https://192.0.2.1 (RACKSEED_SERVER)")
		}
		f.StringVar(&o.Fingerprint, "fingerprint", "", "SHA-256 of its certificate (RACKSEED_FINGERPRINT)")
		f.StringVar(&o.Token, "token", "", "bearer token (RACKSEED_TOKEN)")
		f.StringVarP(&o.output, "output", "o", "text", "text, json or yaml")
		c.SilenceUsage = true
		root.AddCommand(c)
	}
}

// connect makes a client from flags, environment and the kept login.
func (o *options) connect() (*client.Client, error) {
	kept, err := load()
	if err != nil && !errors.Is(err, errNoLogin) {
		return nil, err
	}
	c := choose(o.credentials, fromEnv(), kept)
	if c.Server == "" || c.Token == "" {
		return nil, errNoLogin
	}
	return client.New(c.Server, c.Fingerprint, c.Token)
}

// show asks for path and writes the answer: as asked for, or as text made by
// text from the decoded answer.
func show[T any](ctx context.Context, o *options, w io.Writer, path string, query url.Values, text func(io.Writer, T) error) error {
	c, err := o.connect()
	if err != nil {
		return err
	}
	answer, err := c.Raw(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	return render(o, w, answer, text)
}

// act sends a change and writes the answer.
func act[T any](ctx context.Context, o *options, w io.Writer, path string, in any, text func(io.Writer, T) error) error {
	c, err := o.connect()
	if err != nil {
		return err
	}
	answer, err := c.Raw(ctx, http.MethodPost, path, nil, in)
	if err != nil {
		return err
	}
	return render(o, w, answer, text)
}

// render writes an answer in the form that was asked for.
func render[T any](o *options, w io.Writer, answer []byte, text func(io.Writer, T) error) error {
	switch o.output {
	case "json":
		var v any
		if err := json.Unmarshal(answer, &v); err != nil {
			return err
		}
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case "yaml":
		y, err := yaml.JSONToYAML(answer)
		if err != nil {
			return err
		}
		_, err = w.Write(y)
		return err
	case "text":
		var v T
		if err := json.Unmarshal(answer, &v); err != nil {
			return fmt.Errorf("the answer is not what was expected: %w; is the boot service of the same version?", err)
		}
		return text(w, v)
	}
	return fmt.Errorf("-o %s: text, json and yaml are known", o.output)
}

// machinePath is a machine's path in the API.
func machinePath(word, rest string) string { return "/api/machines/" + url.PathEscape(word) + rest }
