package appliance

import (
	"context"
	"strings"
)

// order is what somebody at the machine may have done by typing it, as root of a
// machine with a shell does by the command line.
type order struct {
	args []string // of the program
	// anew has the boot service started anew once it went well.
	anew bool
	// then is said after what the program said.
	then string
}

// orderOf reads a typed line: recover, recover NAME and break-glass.
func orderOf(line string) (order, bool) {
	words := strings.Fields(line)
	if len(words) > 0 && words[0] == "rackseed" {
		words = words[1:]
	}
	switch {
	case len(words) == 1 && words[0] == "recover":
		return order{args: []string{"recover", "--data", dataDir}, then: "To do it, type recover and the name of the cluster."}, true
	case len(words) == 2 && words[0] == "recover":
		return order{args: []string{"recover", "--data", dataDir, "--cluster", words[1]}, anew: true}, true
	case len(words) == 1 && words[0] == "break-glass":
		return order{args: []string{"break-glass", "--local", socket}}, true
	}
	return order{}, false
}

// Order implements desk.World.
func (w world) Order(line string) func(context.Context) string {
	o, ok := orderOf(line)
	if !ok {
		return nil
	}
	return func(ctx context.Context) string {
		text, err := w.children.Output(ctx, "/init", o.args...)
		if err == nil && o.anew {
			w.serveAnew()
		}
		if o.then != "" {
			text = strings.TrimSpace(text) + "\n" + o.then
		}
		return strings.TrimSpace(text)
	}
}
