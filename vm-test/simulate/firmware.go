package simulate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

const (
	maxScript  = 64 << 10
	firstReply = 20 * time.Second // bounds one script
	loadLimit  = 10 * time.Minute // bounds kernel and initrd, each
	// askAgain is the least rest before a script is asked for again.
	askAgain = 500 * time.Millisecond
)

// boot is what a boot script tells a machine.
type boot struct {
	Kind           machine.BootKind
	Why            string // the script's first echo, for people
	Again          bool   // the script only waits, then asks again
	Kernel, Initrd string // URLs
	Service        string // rackseed.url
}

// variable is iPXE's ${name} or ${name:type} (https://ipxe.org/cfg).
var variable = regexp.MustCompile(`\$\{([^}]*)\}`)

// next finds where /boot.ipxe chains to, with the machine's particulars in
// place of iPXE's settings.
func next(script string, settings map[string]string) (string, error) {
	for line := range strings.Lines(script) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "chain" {
			continue
		}
		for _, word := range words[1:] {
			if strings.HasPrefix(word, "--") {
				continue
			}
			var unknown error
			address := variable.ReplaceAllStringFunc(word, func(s string) string {
				value, ok := settings[s[2:len(s)-1]]
				if !ok {
					unknown = fmt.Errorf("iPXE has no setting %s: in %s", s, word)
				}
				return value
			})
			return address, unknown
		}
	}
	return "", fmt.Errorf("the script chains nowhere: %.200q", script)
}

// parseBoot reads a machine's own script as far as it decides what is booted.
func parseBoot(script string) (boot, error) {
	if !strings.HasPrefix(script, "#!ipxe\n") {
		return boot{}, fmt.Errorf("this is no iPXE script: %.200q", script)
	}
	var b boot
	for line := range strings.Lines(script) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "echo":
			if b.Why == "" {
				b.Why = strings.Join(words[1:], " ")
			}
		case "kernel", "initrd":
			address, args := argument(words[1:])
			if words[0] == "initrd" {
				b.Initrd = address
				continue
			}
			b.Kernel = address
			for _, a := range args {
				if v, ok := strings.CutPrefix(a, "rackseed.url="); ok {
					b.Service = v
				}
				if v, ok := strings.CutPrefix(a, "rackseed.mode="); ok {
					b.Kind = machine.BootKind(v)
				}
			}
		case "boot":
			switch {
			case b.Kernel == "" || b.Initrd == "":
				return b, errors.New("the script boots without kernel and initrd")
			case b.Service == "" || (b.Kind != machine.BootDiscovery && b.Kind != machine.BootInstall && b.Kind != machine.BootRescue):
				return b, fmt.Errorf("the installer is booted with rackseed.url=%q and rackseed.mode=%q", b.Service, b.Kind)
			}
			return b, nil
		case "exit":
			b.Kind = machine.BootLocal
			return b, nil
		case "chain":
			b.Again = true
			return b, nil
		}
	}
	return b, fmt.Errorf("the script ends without saying what to boot: %.200q", script)
}

// argument is the first word that is no option, and what follows it.
func argument(words []string) (string, []string) {
	for i := 0; i < len(words); i++ {
		if words[i] == "--name" {
			i++
		} else if !strings.HasPrefix(words[i], "--") {
			return words[i], words[i+1:]
		}
	}
	return "", nil
}

// netboot does what iPXE does until it has started something: it asks again as
// long as the boot service is away or has it wait.
func (m *Machine) netboot(ctx context.Context) (boot, error) {
	http := &http.Client{Transport: m.Transport}
	defer http.CloseIdleConnections()
	told := ""
	for {
		b, err := m.askBoot(ctx, http)
		if err == nil && !b.Again && b.Kind != machine.BootLocal {
			err = m.load(ctx, http, b)
		}
		var wrong *wrongScript
		switch {
		case ctx.Err() != nil:
			return b, errors.Join(context.Cause(ctx), err)
		case errors.As(err, &wrong):
			return b, err
		case err == nil && !b.Again:
			m.Log.Info("boots", "what", b.Kind, "why", b.Why)
			return b, nil
		case err == nil:
			err = errors.New(b.Why)
		}
		if text := err.Error(); text != told {
			m.Log.Warn("netboot; asking again", "error", err)
			told = text
		}
		if err := rest(ctx, max(m.Pace, askAgain)); err != nil {
			return b, err
		}
	}
}

// wrongScript is what asking again does not mend.
type wrongScript struct{ err error }

func (e *wrongScript) Error() string { return e.err.Error() }
func (e *wrongScript) Unwrap() error { return e.err }

func (m *Machine) askBoot(ctx context.Context, http *http.Client) (boot, error) {
	script, err := get(ctx, http, strings.TrimRight(m.URL, "/")+"/boot.ipxe")
	if err != nil {
		return boot{}, err
	}
	platform := "efi"
	if m.Inventory.Firmware == "bios" {
		platform = "pcbios"
	}
	address, err := next(script, map[string]string{
		"netX/mac": string(m.Inventory.BootMAC), "uuid": m.Inventory.UUID,
		"buildarch": "x86_64", "platform": platform,
	})
	if err != nil {
		return boot{}, &wrongScript{fmt.Errorf("/boot.ipxe: %w", err)}
	}
	if script, err = get(ctx, http, address); err != nil {
		return boot{}, err
	}
	b, err := parseBoot(script)
	if err != nil {
		return b, &wrongScript{fmt.Errorf("/boot/script: %w", err)}
	}
	return b, nil
}

func get(ctx context.Context, http *http.Client, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, firstReply)
	defer cancel()
	var b strings.Builder
	err := fetch(ctx, http, address, &b, maxScript)
	return b.String(), err
}

// load fetches kernel and initrd, whose digests are in their URLs.
func (m *Machine) load(ctx context.Context, http *http.Client, b boot) error {
	ctx, cancel := context.WithTimeout(ctx, loadLimit)
	defer cancel()
	for _, address := range []string{b.Kernel, b.Initrd} {
		sum := sha256.New()
		if err := fetch(ctx, http, address, sum, 1<<30); err != nil {
			return err
		}
		want := "sha256:" + hex.EncodeToString(sum.Sum(nil))
		u, err := url.Parse(address)
		if err != nil || path.Base(path.Dir(u.Path)) != want || !strings.HasPrefix(u.Path, wire.PathBlob) {
			return &wrongScript{fmt.Errorf("%s: what came has the digest %s", address, want)}
		}
	}
	return nil
}

func fetch(ctx context.Context, client *http.Client, address string, to io.Writer, most int64) (err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return &wrongScript{err}
	}
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: the boot service answers %s", address, resp.Status)
	}
	n, err := io.Copy(to, io.LimitReader(resp.Body, most+1))
	if err == nil && n > most {
		err = fmt.Errorf("it has over %d bytes", most)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	return nil
}
