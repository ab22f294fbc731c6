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
	// alone has the boot service stopped meanwhile.
	alone bool
	// key is a recovery key, which the program reads from a file: a command line is
	// seen by all.
	key string
	// then is said after what the program said, if it went well; without args it is
	// all that there is to say.
	then string
}

// keyFile is in memory, where the recovery key is while it is needed.
const keyFile = "/run/recovery-key"

// backupFile is a backup that somebody put onto the stick: recover then goes on from it.
const backupFile = siteDir + "/rackseed.backup"

// keyPrefix is how a recovery key begins.
const keyPrefix = "AGE-SECRET-KEY-1"

// How orders are typed.
const (
	recoverUsage    = "Type recover to see what it would do, and recover NAME, with the name of the cluster, to do it. A backup that is on the stick's partition RACKSEED as rackseed.backup is what it goes on from. If it asks for the recovery key, that is typed at the end: recover NAME AGE-SECRET-KEY-1..."
	breakGlassUsage = "Type break-glass, and nothing else, for a new setup code."
)

// orderOf reads a typed line: recover and recover NAME, either with the recovery key
// at its end, and break-glass. One that begins so and goes on otherwise is told how.
// backup is the backup on the stick; "": none.
func orderOf(line, backup string) (order, bool) {
	words := strings.Fields(line)
	if len(words) > 0 && words[0] == "rackseed" {
		words = words[1:]
	}
	if len(words) == 0 {
		return order{}, false
	}
	switch words[0] {
	case "recover":
		return recoverOrder(words[1:], backup), true
	case "break-glass":
		if len(words) > 1 {
			return order{then: breakGlassUsage}, true
		}
		return order{args: []string{"break-glass", "--local", socket}}, true
	}
	return order{}, false
}

func recoverOrder(words []string, backup string) order {
	o := order{args: []string{"recover", "--data", dataDir}, alone: true}
	if backup != "" {
		o.args = append(o.args, "--from", backup)
	}
	if n := len(words) - 1; n >= 0 && strings.HasPrefix(strings.ToUpper(words[n]), keyPrefix) {
		o.key, words = words[n], words[:n]
		o.args = append(o.args, "--recovery-key", keyFile)
	}
	switch len(words) {
	case 0:
		o.args, o.then = append(o.args, "--dry-run"), "To do it, type recover and the name of the cluster."
	case 1:
		o.args = append(o.args, "--cluster", words[0])
	default:
		return order{then: recoverUsage}
	}
	return o
}

// Order implements desk.World.
func (w world) Order(line string) func(context.Context) string {
	backup := ""
	if _, err := os.Stat(backupFile); err == nil {
		backup = backupFile
	}
	o, ok := orderOf(line, backup)
	if !ok {
		return nil
	}
	return func(ctx context.Context) (text string) {
		if o.args == nil {
			return o.then
		}
		if !o.alone {
			return w.carryOut(ctx, o)
		}
		if err := w.withoutService(ctx, func() { text = w.carryOut(ctx, o) }); err != nil {
			return "nothing was done: the boot service did not stop: " + err.Error()
		}
		return text
	}
}

func (w world) carryOut(ctx context.Context, o order) string {
	if o.key != "" {
		if err := os.WriteFile(keyFile, []byte(o.key), 0o600); err != nil {
			return err.Error()
		}
		defer os.Remove(keyFile)
	}
	text, err := w.children.Output(ctx, "/init", o.args...)
	text = strings.TrimSpace(text)
	if err == nil && o.then != "" {
		text += "\n" + o.then
	}
	return text
}
