package netboot

import (
	"fmt"
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

// bootScript is what every iPXE starts with: it asks for the machine's own
// script, for ever. base is the server's URL.
//
// netX is the NIC that iPXE booted from, whatever its number. --replace lets
// the next script end as the firmware's boot option does: without it, control
// would come back here. ${serial} may hold anything, so it goes as a URI
// component. An answer of 503 is not executed: iPXE itself asks again after
// its Retry-After. (Debian 13's iPXE 1.21.1+git20250501: seen as QEMU's BIOS
// ROM and as snponly.efi on OVMF, with this script and those below.)
func bootScript(base string) string {
	return `#!ipxe
:again
chain --replace --autofree ` + base + `/boot/script?mac=${netX/mac}&uuid=${uuid}&serial=${serial:uristring}&arch=${buildarch}&platform=${platform} || goto wait
:wait
` + fmt.Sprintf("echo Rackseed: no boot script from %s, trying again in %d s\nsleep %d\ngoto again\n", plain(base), pauseFailed, pauseFailed)
}

// waitScript tells a machine why it must wait, and has it ask again.
func waitScript(base, reason string) string {
	return fmt.Sprintf("#!ipxe\necho Rackseed: %s, asking again in %d s\n:again\nsleep %d\n%s", plain(reason), pauseWait, pauseWait, chainBack(base))
}

// chainBack asks for a new decision; if even that cannot be fetched, it tries
// for ever at the label again.
func chainBack(base string) string {
	return "chain --replace --autofree " + base + pathBoot + " || goto again\n"
}

// localScript gives the machine back to its firmware, which tries the next
// boot option: its own disk.
//
// The status matters. For UEFI, a boot option that returns success has ended
// the boot (UEFI 2.10 §3.1.7), and the firmware shows its menu; one that fails
// is followed by the next: OVMF was seen to go on. A BIOS goes on to the next
// device either way: SeaBIOS was seen to.
func localScript(who, reason string) string {
	return fmt.Sprintf("#!ipxe\necho Rackseed: %s boots its own disk: %s\nexit 1\n", plain(who), plain(reason))
}

// refusedScript is for a machine that nothing here can boot.
func refusedScript(reason string) string {
	return fmt.Sprintf("#!ipxe\necho Rackseed: %s\nsleep %d\nexit 1\n", plain(reason), pauseWait)
}

// boot is what one machine's script is made from.
type boot struct {
	base     string // the server's URL
	who      string // the machine, for whoever looks at its screen
	mac      machine.MAC
	decision machine.BootDecision
	kernel   string // digests
	initrd   string
	emulated bool
}

// script renders the decision.
func (b boot) script() string {
	if b.decision.Kind == machine.BootLocal {
		return localScript(b.who, b.decision.Reason)
	}
	return "#!ipxe\n" +
		"echo Rackseed: " + plain(b.who) + " boots the installer (" + plain(string(b.decision.Kind)) + "): " + plain(b.decision.Reason) + "\n" +
		// A name for each: the kernel's EFI stub finds the initrd by the name
		// on its command line.
		"kernel --name " + fileKernel + " " + b.blob(b.kernel, fileKernel) + " " + strings.Join(b.arguments(), " ") + " || goto failed\n" +
		"initrd --name " + fileInitrd + " " + b.blob(b.initrd, fileInitrd) + " || goto failed\n" +
		"boot || goto failed\n" +
		":failed\n" +
		// A half-fetched image must not be started by the next boot.
		"imgfree\n" +
		fmt.Sprintf("echo Rackseed: that failed, asking again in %d s\n:again\nsleep %d\n", pauseFailed, pauseFailed) +
		chainBack(b.base)
}

func (b boot) blob(digest, name string) string { return b.base + pathBlobs + digest + "/" + name }

// arguments are the installer's kernel command line (docs/interfaces.md).
func (b boot) arguments() []string {
	args := []string{
		"initrd=" + fileInitrd,
		"rackseed.role=installer",
		"rackseed.url=" + b.base,
		"rackseed.mode=" + string(b.decision.Kind),
		// As PXELINUX writes it: the hardware type, then the address.
		"BOOTIF=01-" + strings.ReplaceAll(string(b.mac), ":", "-"),
		"console=tty0", "console=ttyS0,115200n8",
	}
	if b.emulated {
		args = append(args, machine.EmulatedArguments...)
	}
	return args
}

// plain makes text fit for a script's echo: one line of harmless characters.
// iPXE expands ${…} anywhere, ends commands at words like && or ; or #, and
// takes a word that begins with a hyphen for an option; so what is not known to
// be harmless becomes a question mark.
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
