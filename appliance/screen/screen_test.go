package screen

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "write the golden files anew")

var views = map[string]View{
	"starting": {Links: []string{"eth0 10.77.0.2/24"}, Data: "/dev/sda4, 23.0 GiB"},
	"first": {
		Status: &Status{
			Site: "lab", ConsoleURLs: []string{"https://10.77.0.1", "https://10.77.0.2"},
			Fingerprint: strings.Repeat("0123456789abcdef", 4), SetupCode: "7K2M-Q8XD-44RT-0WZN",
			Health: []Health{{"dhcp", true, "serves eth0"}, {"tftp", true, ""}, {"address", false, "10.77.0.1 is in use by 52:54:00:00:00:09; switch that machine off or choose another address"}},
		},
		Links: []string{"eth0 10.77.0.2/24"}, Data: "/dev/sda4, 23.0 GiB",
	},
	"bad-site": {
		Status: &Status{
			SiteProblems: []string{
				`site.yaml:7:12: links[0].dhcp.from: "10.77.0.300": expected an IPv4 address, as 10.77.0.100`,
				`site.yaml:9:3: links[0].gatewy: unknown; did you mean gateway?`,
			},
		},
		SiteFile: "site.yaml on the stick has faults, said below; the one kept in the data partition stays in force. Correct it on the stick's partition RACKSEED and start again. To change it type setup and press Enter.",
		Lost:     "the stick has 4.0 GiB, and keeping data needs at least 8.5 GiB; use a larger stick",
		Faults:   []string{"eth7: no link has this name; there are eth0, eth1"},
	},
	"memory-only": {
		Status: &Status{Site: "lab", ConsoleURLs: []string{"https://10.77.0.1"}, Health: []Health{{"dhcp", true, ""}, {"tftp", false, "waiting"}, {"netboot", false, "waiting"}}},
		Lost:   "/dev/sr0 cannot be written (a CD)", MemoryOnly: true,
	},
	"no-site": {
		Status:   &Status{SiteProblems: []string{"site.yaml: it is missing"}, Fingerprint: strings.Repeat("0123456789abcdef", 4), SetupCode: "7K2M-Q8XD-44RT-0WZN", Health: []Health{{"console", true, ""}}},
		SiteFile: "THERE IS NONE, so no machine is served. To set the site up type setup and press Enter, here or on any serial port.", SiteMissing: true,
		Data: "/dev/sda4, 23.0 GiB",
	},
	"link-only": {
		Status:   &Status{SiteProblems: []string{"site.yaml: it is missing"}, SetupCode: "7K2M-Q8XD-44RT-0WZN"},
		SiteFile: "THERE IS NONE, so no machine is served. The setup form is being filled in on ttyS0; type setup and press Enter to take it over.", SiteMissing: true,
		Links: []string{"eth0.20 10.77.0.2/24"}, Own: []string{"10.77.0.2"}, Data: "/dev/sda4, 23.0 GiB",
	},
	"sealing":   {Status: &Status{Site: "lab", Sealed: true}},
	"let-go":    {Status: &Status{Sealed: true, LetGo: true, Health: []Health{{"state", true, ""}}}},
	"restarted": {Service: "rackseed serve ended: exit status 2; it is started again", Data: "/dev/sda4"},
}

func TestHeadGolden(t *testing.T) {
	for name, v := range views {
		got := strings.Join(Head(v, 79), "\n") + "\n"
		file := filepath.Join("testdata", name+".txt")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
		}
	}
}

// What nobody may overlook is red on a display, and nothing else is.
func TestBannerIsRed(t *testing.T) {
	d := NewDisplay("tty0", nil, func(int) []string { return nil }, func() (int, int) { return 80, 40 })
	for name, red := range map[string]bool{"memory-only": true, "first": false} {
		d.Show(views[name])
		text, _ := d.next(nil)
		if strings.Contains(text, "\x1b[1;37;41m!! NOTHING IS KEPT") != red {
			t.Errorf("%s:\n%q", name, text)
		}
	}
}

func TestPageFitsAnyScreen(t *testing.T) {
	log := []string{strings.Repeat("long ", 100), "short", "last"}
	for name, v := range views {
		for _, size := range [][2]int{{80, 25}, {40, 10}, {200, 60}, {80, 1}} {
			lines := Page(v, log, size[0], size[1])
			if len(lines) > max(size[1]-1, 1) {
				t.Errorf("%s: %d lines on a screen of %v", name, len(lines), size)
			}
			for _, l := range lines {
				if utf8.RuneCountInString(l) > size[0] {
					t.Errorf("%s: line %q is wider than %v", name, l, size)
				}
			}
		}
	}
	if got := Page(View{}, log, 80, 25); got[len(got)-1] != "last" {
		t.Errorf("the newest line of the log is not the last: %q", got)
	}
}

// A serial port gets each line once and the head only when it changed, without
// control sequences.
func TestSerial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out buffer
		term := NewSerial("ttyS0", &out)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- term.Run(ctx) }()
		settled := func() {
			time.Sleep(2 * settle) // virtual
			synctest.Wait()
		}
		term.Log("one")
		term.Show(views["first"])
		settled()
		term.Show(views["first"])
		term.Log("two")
		settled()
		got := out.String()
		if strings.Count(got, "Rackseed, site lab") != 1 || strings.Count(got, "one\n") != 1 || !strings.HasSuffix(got, "two\n") {
			t.Errorf("the port got:\n%s", got)
		}
		if strings.ContainsAny(got, "\x1b\r\a") {
			t.Errorf("control characters in %q", got)
		}
		term.Show(views["bad-site"])
		settled()
		if !strings.Contains(out.String(), "site.yaml:7:12") {
			t.Error("a change was not shown")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestDisplayIsDrawnOnlyWhenSomethingChanged(t *testing.T) {
	recent := []string{"a line"}
	term := NewDisplay("the display", nil, func(int) []string { return recent }, func() (int, int) { return 80, 25 })
	term.Show(views["first"])
	text, shown := term.next(nil)
	if !strings.HasPrefix(text, "\x1b[H") || !strings.Contains(text, "a line") {
		t.Errorf("drawn: %q", text)
	}
	if text, _ := term.next(shown); text != "" {
		t.Errorf("drawn again: %q", text)
	}
	recent = append(recent, "another")
	if text, _ := term.next(shown); !strings.Contains(text, "another") {
		t.Errorf("not drawn: %q", text)
	}
}

// While a dialogue is held nothing else is shown, and all of it afterwards.
func TestTalk(t *testing.T) {
	serial, display := NewSerial("ttyS0", nil), NewDisplay("the display", nil, func(int) []string { return nil }, func() (int, int) { return 80, 25 })
	for _, term := range []*Terminal{serial, display} {
		term.Show(views["first"])
		_, shown := term.next(nil)
		term.Talk(true)
		term.Log("held back")
		term.Say("Which link [1]: ")
		term.Show(views["restarted"])
		text, shown := term.next(shown)
		if strings.TrimPrefix(text, "\x1b[H\x1b[J") != "Which link [1]: " {
			t.Errorf("%s: %q", term.Name(), text)
		}
		term.Say(strings.Repeat("x", pendingText))
		term.Say("more than a port that is held can take")
		if text, _ := term.next(shown); len(text) != pendingText {
			t.Errorf("%s: %d bytes waited", term.Name(), len(text))
		}
		term.Talk(false)
		if text, _ = term.next(shown); !strings.Contains(text, "exit status 2") {
			t.Errorf("%s: after the dialogue: %q", term.Name(), text)
		}
		if held := strings.Contains(text, "held back\n"); held != term.serial {
			t.Errorf("%s: the log after the dialogue: %q", term.Name(), text)
		}
	}
}

// What is typed on a display stands below the page until the line ends; on a
// serial port it is echoed.
func TestTyped(t *testing.T) {
	typed := &buffer{}
	serial, display := NewSerial("ttyS0", reading("se\b\r")), NewDisplay("the display", reading("set"), func(int) []string { return nil }, func() (int, int) { return 80, 25 })
	for _, term := range []*Terminal{serial, display} {
		if err := term.Listen(func(line string) { typed.Write([]byte(line + ";")) }); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", term.Name(), err)
		}
	}
	if typed.String() != "s;" {
		t.Errorf("lines %q", typed.String())
	}
	if text, _ := serial.next(Head(View{}, serialWidth)); text != "se\b \b\n" {
		t.Errorf("echo %q", text)
	}
	if text, _ := display.next(nil); !strings.HasSuffix(text, "\x1b[Jset") {
		t.Errorf("the display shows %q", text)
	}
}

// reading is a device on which something is typed.
func reading(text string) io.ReadWriter {
	return struct {
		io.Reader
		io.Writer
	}{strings.NewReader(text), nil}
}

// A port that takes nothing is bounded, and says afterwards what it missed.
func TestSlowSerialPort(t *testing.T) {
	term := NewSerial("ttyS0", nil)
	for range pendingLines + 7 {
		term.Log("x")
	}
	text, _ := term.next(nil)
	if strings.Count(text, "x\n") != pendingLines || !strings.Contains(text, "(7 lines were not shown here") {
		t.Errorf("got %d bytes", len(text))
	}
}

func TestRunEndsWithADeadDevice(t *testing.T) {
	dead := errors.New("input/output error")
	term := NewSerial("ttyS0", writerFunc(func([]byte) (int, error) { return 0, dead }))
	term.Show(views["first"])
	if err := term.Run(t.Context()); !errors.Is(err, dead) {
		t.Errorf("got %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func (f writerFunc) Read([]byte) (int, error) { return 0, io.EOF }

type buffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) Read([]byte) (int, error) { return 0, io.EOF }

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
