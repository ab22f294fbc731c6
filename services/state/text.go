package state

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

// asker says who asked, for a sentence: "operator:ann" is "operator ann".
func asker(by string) string {
	if kind, name, ok := strings.Cut(by, ":"); ok && kind != "" && name != "" {
		return kind + " " + name
	}
	return by
}

// span writes a duration short: "1h", "1h30m", "90s".
func span(d time.Duration) string {
	s := d.Round(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// clip shortens what a machine sent to maxText bytes (clipTo: to limit), at a whole rune, and
// makes it one line of printable UTF-8.
func clip(s string) string { return clipTo(s, maxText) }

func clipTo(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return -1
		}
		return r
	}, s)
	if len(s) <= limit {
		return s
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

func plural(n int, word string) string {
	if n == 1 {
		return fmt.Sprintf("1 %s", word)
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// size writes bytes in binary units without needless digits.
func size(bytes uint64) string {
	for _, u := range []struct {
		unit  uint64
		short string
	}{{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if bytes >= u.unit {
			s := fmt.Sprintf("%.1f", float64(bytes)/float64(u.unit))
			return strings.TrimSuffix(s, ".0") + " " + u.short
		}
	}
	return fmt.Sprintf("%d B", bytes)
}

// summary is an inventory in one line: "QEMU Standard PC, 2 CPUs, 4 GiB, 1 disk".
func summary(i machine.Inventory) string {
	var parts []string
	if model := strings.TrimSpace(strings.TrimSpace(i.Manufacturer) + " " + strings.TrimSpace(i.Product)); model != "" {
		parts = append(parts, model)
	}
	parts = append(parts, plural(i.CPU.Threads, "CPU"), size(i.MemoryBytes), plural(len(i.Disks), "disk"))
	return clip(strings.Join(parts, ", "))
}

// diskWords tell a disk from others: "Samsung SSD, serial S4EV, 20 GiB".
func diskWords(d machine.Disk) string {
	var parts []string
	if model := strings.TrimSpace(d.Model); model != "" {
		parts = append(parts, model)
	}
	if d.Serial != "" {
		parts = append(parts, "serial "+d.Serial)
	}
	return strings.Join(append(parts, size(d.Bytes)), ", ")
}

// stepWords says what happens in a step of the install: its name, and what is
// being done.
var stepWords = map[string][2]string{
	wire.StepDisk:       {"Disk", "choosing the disk"},
	wire.StepPartition:  {"Partitions", "partitioning"},
	wire.StepImage:      {"Image", "writing image"},
	wire.StepIgnition:   {"Ignition", "running Ignition"},
	wire.StepBootloader: {"Boot loader", "installing the boot loader"},
	wire.StepReboot:     {"Reboot", "rebooting"},
}

// stepReason is why a machine is being installed right now: "writing image 43 %",
// or, of a step that knows no end, what it says: "dividing the disk, for 2m10s".
func stepReason(r wire.Report) string {
	if r.Status == wire.StepProgress && r.Total == 0 && r.Text != "" {
		return clip(r.Text)
	}
	s := stepWords[r.Step][1]
	if r.Total > 0 && r.Done >= 0 && r.Done <= r.Total && r.Status == wire.StepProgress {
		s += fmt.Sprintf(" %d %%", int64(float64(r.Done)/float64(r.Total)*100))
	}
	return s
}

// stepSentence is a step's event: "Image: written (420 of 420 MiB)".
func stepSentence(r wire.Report) string {
	words := stepWords[r.Step]
	text := clip(r.Text)
	if text == "" {
		text = map[wire.ReportStatus]string{
			wire.StepStarted: words[1], wire.StepDone: "done", wire.StepFailed: "failed",
		}[r.Status]
	}
	s := words[0] + ": " + text
	if r.Total > 0 && r.Done > 0 {
		s += fmt.Sprintf(" (%d of %d MiB)", r.Done>>20, r.Total>>20)
	}
	return s
}
