package netboot

import (
	"strings"

	"github.com/rackseed/rackseed/services/machine"
)

// Names of the files of the installer's artifact.
const (
	fileKernel = "vmlinuz"
	fileInitrd = "initrd.img"
)

// Pauses in scripts, in seconds: long enough not to be a flood from a full
// rack, short enough for whoever stands before the machine.
const (
	pauseFailed = 5
	pauseWait   = 10
)

// After so many rounds in vain a script goes on to the machine's own disk: the
// boot service may never come back, and the machine may be somebody's server.
// With the pauses, and what a boot program waits for an answer (iPXE 16 s, GRUB
// half a minute), that is 5 minutes where each request is refused at once, 10
// where it is answered, and 20 where nothing answers.
const (
	rounds     = 60
	roundsGRUB = 30
)

// ordered says whether something is ordered for the machine: then its scripts
// never go on without it.
func ordered(d machine.BootDecision) bool {
	return d.Kind == machine.BootInstall || d.Kind == machine.BootRescue
}

// language is what a boot program takes its orders in. Each script goes on or
// hands over by itself: none ends at a prompt, and none asks for ever unless
// something is ordered.
type language interface {
	// wait has the machine ask again; for ever if something is ordered for it.
	wait(base, reason string, ordered bool) string
	// refused is for a machine that nothing here can boot.
	refused(reason string) string
	// local hands over to the machine's own disk.
	local(b boot) string
	// installer loads the installer.
	installer(b boot) string
}

// boot is what one machine's script is made from.
type boot struct {
	base     string // the server's URL
	who      string // the machine, for whoever looks at its screen
	mac      machine.MAC
	uefi     bool
	decision machine.BootDecision
	leave    machine.LeaveBy // how it goes on to its own disk
	kernel   string          // digests
	initrd   string
	emulated bool
}

func (b boot) blob(digest, name string) string { return pathBlobs + digest + "/" + name }

// arguments are the installer's kernel command line (docs/interfaces.md).
func (b boot) arguments() []string {
	args := []string{
		"rackseed.role=installer",
		"rackseed.url=" + b.base,
		"rackseed.mode=" + string(b.decision.Kind),
		// As PXELINUX writes it: the hardware type, then the address.
		"BOOTIF=01-" + strings.ReplaceAll(string(b.mac), ":", "-"),
		// A kernel that cannot start the installer begins again.
		"panic=30",
		"console=tty0", "console=ttyS0,115200n8",
	}
	if b.emulated {
		// One processor is enough to install, and cannot miss the wake-up of
		// another: under multi-threaded emulation an installer was seen to stand
		// still for ever early in its boot ("possible timer handling issue on
		// cpu=1"), nohz=off or not.
		args = append(append(args, machine.EmulatedArguments...), "nr_cpus=1")
	}
	return args
}

// plain makes text fit for a script's echo: one line of characters that are
// harmless in each language. Both expand ${…} anywhere and end commands at
// words like && or ; or #; iPXE takes a word that begins with a hyphen for an
// option, GRUB ends strings at quotes. So what is not known to be harmless
// becomes a question mark.
func plain(s string) string {
	const most = 200
	out := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(" .,:/()-_+=", r):
			return r
		}
		return '?'
	}, s)
	if len(out) > most {
		out = out[:most-3] + "..."
	}
	return strings.TrimPrefix(strings.ReplaceAll(" "+out, " -", " ?"), " ")
}
