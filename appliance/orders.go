package appliance

import (
	"context"
	"os"
	"strings"
)

// order is what somebody at the machine may have done by typing it, as root of a
// machine with a shell does by the command line.
type order struct {
	args []string // of the program
	// anew has the boot service started anew once it went well.
	anew bool
	// key is a recovery key, which the program reads from a file: a command line is
	// seen by all.
	key string
	// then is said after what the program said.
	then string
}

// keyFile is in memory, where the recovery key is while it is needed.
const keyFile = "/run/recovery-key"

// keyPrefix is how a recovery key begins.
const keyPrefix = "AGE-SECRET-KEY-1"

// orderOf reads a typed line: recover and recover NAME, either with the recovery key
// at its end, and break-glass.
func orderOf(line string) (order, bool) {
	words := strings.Fields(line)
	if len(words) > 0 && words[0] == "rackseed" {
		words = words[1:]
	}
	recover := order{args: []string{"recover", "--data", dataDir}}
	if n := len(words) - 1; n > 0 && words[0] == "recover" && strings.HasPrefix(strings.ToUpper(words[n]), keyPrefix) {
		recover.key, words = words[n], words[:n]
		recover.args = append(recover.args, "--recovery-key", keyFile)
	}
	switch {
	case len(words) == 1 && words[0] == "recover":
		recover.then = "To do it, type recover and the name of the cluster."
		return recover, true
	case len(words) == 2 && words[0] == "recover":
		recover.args, recover.anew = append(recover.args, "--cluster", words[1]), true
		return recover, true
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
		if o.key != "" {
			if err := os.WriteFile(keyFile, []byte(o.key), 0o600); err != nil {
				return err.Error()
			}
			defer os.Remove(keyFile)
		}
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
