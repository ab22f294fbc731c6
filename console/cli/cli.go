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
	"strings"

	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/console/client"
	"github.com/rackseed/rackseed/services/machine"
)

// What the program ends with. Scripts may rely on them.
const (
	ExitDone        = 0   // done
	ExitRefused     = 1   // refused, failed, or something is wrong: the text says what
	ExitUsage       = 2   // the command line is wrong
	ExitNoAnswer    = 3   // the boot service did not answer
	ExitNoLogin     = 4   // not logged in, or the login is over
	ExitInterrupted = 130 // interrupted by Ctrl-C or SIGTERM; 128 and SIGINT, as shells say it
)

const exitHelp = `Exit status: 0 done; 1 refused or failed, and the text says why; 2 the command
line is wrong; 3 the boot service did not answer; 4 not logged in; 130 interrupted.`

// usageError is a mistake in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// ExitCode is what the program ends with for an error of a command.
func ExitCode(err error) int {
	var usage usageError
	var answer *client.AnswerError
	var silence *client.NoAnswerError
	switch {
	case err == nil:
		return ExitDone
	case errors.Is(err, client.ErrInterrupted):
		return ExitInterrupted
	// Cobra has no type for a command that it does not know.
	case errors.As(err, &usage), strings.HasPrefix(err.Error(), "unknown command "):
		return ExitUsage
	case errors.As(err, &silence):
		return ExitNoAnswer
	case errors.Is(err, errNoLogin), errors.As(err, &answer) && answer.Status == http.StatusUnauthorized:
		return ExitNoLogin
	}
	return ExitRefused
}

// options are the flags that every command has.
type options struct {
	credentials
	output string
	// checkProfile is as in api.CheckSite.
	checkProfile func(machine.Profile) error
	// tokenFrom says where the token comes from, once connect chose it; "" is the
	// kept login.
	tokenFrom string
}

// Add puts the operator's commands under root. checkProfile says what is wrong
// with what a profile gives its nodes in Kubernetes, for site validate; nil: that
// is not looked at.
func Add(root *cobra.Command, checkProfile func(machine.Profile) error) {
	o := &options{checkProfile: checkProfile}
	operator := &cobra.Group{ID: "operator", Title: "For operators, through the boot service's API:"}
	root.AddGroup(operator)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.Long = strings.TrimSpace(root.Long + "\n\n" + exitHelp)
	for _, c := range []*cobra.Command{
		o.setup(), o.login(), o.logout(), o.status(), o.discovery(),
		o.machines(), o.machine(), o.why(), o.approve(), o.retry(), o.revoke(), o.forgetMachine(), o.look(), o.rescue(), o.log(), o.events(),
		o.profile(), o.image(), o.lease(), o.site(), o.cluster(), o.handoff(), o.service(), o.kubeconfig(), o.recoveryKey(), o.backup(), o.supportBundle(), o.version(),
	} {
		c.GroupID = operator.ID
		o.flags(c)
		strict(c)
		o.explained(c)
		root.AddCommand(c)
	}
}

// flags gives a command the flags that all have.
func (o *options) flags(c *cobra.Command) {
	f := c.PersistentFlags()
	if c.Name() != "kubeconfig" { // there, --server is the cluster's API server
		f.StringVar(&o.Server, "server", "", "boot service's URL, as https://192.0.2.1 (RACKSEED_SERVER)")
	}
	f.StringVar(&o.Fingerprint, "fingerprint", "", "SHA-256 of its certificate (RACKSEED_FINGERPRINT)")
	f.StringVar(&o.Token, "token", "", "bearer token (RACKSEED_TOKEN)")
	f.StringVarP(&o.output, "output", "o", outputText, "text, wide, json or yaml")
	complete(c, "output", outputText, outputWide, outputJSON, outputYAML)
	c.PersistentPreRunE = func(*cobra.Command, []string) error { return o.known() }
}

// strict makes mistakes in a command line usage errors, and says no more of the
// usage than what is wrong.
func strict(c *cobra.Command) {
	c.SilenceUsage = true
	if args := c.Args; args != nil {
		c.Args = func(c *cobra.Command, list []string) error {
			if err := args(c, list); err != nil {
				return usageError{fmt.Errorf("%s: %w; see rackseed %s --help", c.CommandPath(), err, strings.TrimPrefix(c.CommandPath(), "rackseed "))}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		strict(sub)
	}
}

// explained makes the errors of a command say what only is known here.
func (o *options) explained(c *cobra.Command) {
	if run := c.RunE; run != nil {
		c.RunE = func(c *cobra.Command, args []string) error { return o.explain(run(c, args)) }
	}
	for _, sub := range c.Commands() {
		o.explained(sub)
	}
}

// explain says of an error that the command was interrupted, wherever it was
// just then, and which token is meant that is not valid.
func (o *options) explain(err error) error {
	var answer *client.AnswerError
	switch {
	case errors.Is(err, context.Canceled) && !errors.Is(err, client.ErrInterrupted):
		return fmt.Errorf("%w before it was done", client.ErrInterrupted)
	case o.tokenFrom != "" && errors.As(err, &answer) && answer.Status == http.StatusUnauthorized:
		return &client.AnswerError{Status: answer.Status, Text: fmt.Sprintf(
			"the token in %s is not valid, or no longer: give another, or none, so that the login of rackseed login is used", o.tokenFrom)}
	}
	return err
}

// family is a command that only holds others.
func family(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		return usageError{errors.Join(errors.New(c.CommandPath()+": one of its commands is needed"), c.Help())}
	}}
	c.AddCommand(commands...)
	return c
}

// connect makes a client from flags, environment and the kept login.
func (o *options) connect() (*client.Client, error) {
	kept, err := load()
	if err != nil && !errors.Is(err, errNoLogin) {
		return nil, err
	}
	env := fromEnv()
	c := choose(o.credentials, env, kept).elsewhere(kept)
	if c.Server == "" || c.Token == "" {
		return nil, errNoLogin
	}
	switch c.Token {
	case o.Token:
		o.tokenFrom = "--token"
	case env.Token:
		o.tokenFrom = "RACKSEED_TOKEN"
	}
	known, err := client.New(c.Server, c.Fingerprint, c.Token)
	if err != nil {
		return nil, usageError{err}
	}
	return known, nil
}

// show asks for path and writes the answer: as asked for, or as text made by
// text from the decoded answer.
func show[T any](ctx context.Context, o *options, w io.Writer, path string, query url.Values, text func(io.Writer, T) error) error {
	return ask(ctx, o, w, http.MethodGet, path, query, nil, text)
}

// judge shows what is at a path, and then fails with what is wrong with it.
func judge[T any](ctx context.Context, o *options, w io.Writer, path string, text func(io.Writer, T) error, wrong func(T) error) error {
	c, err := o.connect()
	if err != nil {
		return err
	}
	answer, err := c.Raw(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	var v T
	if err := json.Unmarshal(answer, &v); err != nil {
		return notExpected(err)
	}
	if err := render(o, w, answer, text); err != nil {
		return err
	}
	return wrong(v)
}

// act sends a change and writes the answer.
func act[T any](ctx context.Context, o *options, w io.Writer, path string, in any, text func(io.Writer, T) error) error {
	return ask(ctx, o, w, http.MethodPost, path, nil, in, text)
}

func ask[T any](ctx context.Context, o *options, w io.Writer, method, path string, query url.Values, in any, text func(io.Writer, T) error) error {
	c, err := o.connect()
	if err != nil {
		return err
	}
	answer, err := c.Raw(ctx, method, path, query, in)
	if err != nil {
		return err
	}
	return render(o, w, answer, text)
}

// machinePath is a machine's path in the API.
func machinePath(word, rest string) string { return "/api/machines/" + url.PathEscape(word) + rest }
