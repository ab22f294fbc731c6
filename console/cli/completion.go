package cli

import (
	"context"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/services/api"
)

// completionTimeout is how long a person who pressed Tab waits for names from
// the boot service. Tests are more patient.
var completionTimeout = 2 * time.Second

// completer gives words, each with a description after a tab.
type completer = func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective)

// complete completes a flag by fixed words.
func complete(c *cobra.Command, flag string, words ...cobra.Completion) {
	completeWith(c, flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// completeWith completes a flag by what of gives. That the flag is one is held
// by the test of completions.
func completeWith(c *cobra.Command, flag string, of completer) {
	if err := c.RegisterFlagCompletionFunc(flag, of); err != nil {
		panic("cli: " + err.Error())
	}
}

// machineNames completes the name of a machine.
func (o *options) machineNames(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	// The command's own arguments; a flag's value is completed at any place.
	if len(args) > 0 && cmd.Name() != "events" {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names(cmd.Context(), o, "/api/machines", func(m api.Machine) cobra.Completion {
		text := string(m.Phase)
		if m.Inventory != nil {
			text = joined(text, m.Inventory.Serial, hardware(m.Inventory))
		}
		return cobra.CompletionWithDesc(called(m.Machine), clean(text))
	})
}

// profileNames completes the name of a profile.
func (o *options) profileNames(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return names(cmd.Context(), o, "/api/profiles", func(p api.ProfileUse) cobra.Completion {
		return cobra.CompletionWithDesc(p.Name, string(p.Role))
	})
}

// names asks the boot service for a list. Without an answer there is nothing to
// complete, and nothing to say: the command itself will.
func names[T any](ctx context.Context, o *options, path string, name func(T) cobra.Completion) ([]cobra.Completion, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp
	c, err := o.connect()
	if err != nil {
		return nil, directive
	}
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	var list api.List[T]
	if err := c.Call(ctx, http.MethodGet, path, nil, nil, &list); err != nil {
		return nil, directive
	}
	var words []cobra.Completion
	for _, item := range list.Items {
		words = append(words, name(item))
	}
	return words, directive
}
