package agent

import (
	"cmp"
	"context"
	"regexp"
	"strings"
	"sync"
	"time"
)

// phasePause is the least time between two reports of where kubeadm is.
const phasePause = 15 * time.Second

// phase is where kubeadm is, by the lines that it prints.
type phase struct {
	mu     sync.Mutex
	latest string // "" once it was told
}

// phaseLine is how kubeadm's phases speak: "[wait-control-plane] Waiting …".
var phaseLine = regexp.MustCompile(`^\[([a-z][a-z-]*)\] (\S.*)$`)

// read takes a line of kubeadm's output.
func (p *phase) read(line string) {
	found := phaseLine.FindStringSubmatch(line)
	if found == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latest = found[1] + ": " + found[2]
}

// take is what was not told yet, or "".
func (p *phase) take() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := p.latest
	p.latest = ""
	return text
}

// tell tells each phasePause the newest line, unless it was told, until stop.
func (p *phase) tell(ctx context.Context, report func(text string)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for pause(ctx, phasePause) {
			if text := p.take(); text != "" {
				report(text)
			}
		}
	}()
	return func() { cancel(); <-done }
}

// complaint is why kubeadm failed, in its own words.
type complaint struct {
	check string // the first preflight check that failed
	final string // what it says at its end
	last  string // the last line, if it says neither
}

// read takes a line of kubeadm's output.
func (c *complaint) read(line string) {
	line = strings.TrimSpace(line)
	switch {
	case strings.HasPrefix(line, "[ERROR ") && c.check == "":
		c.check = line
	case strings.HasPrefix(line, "error: ") && c.final == "":
		c.final = strings.TrimPrefix(line, "error: ")
	}
	if line != "" {
		c.last = line
	}
}

func (c complaint) String() string { return cmp.Or(c.check, c.final, c.last) }
