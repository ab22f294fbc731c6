// Package bench measures Rackseed side by side with programs that others use
// for the same. Each figure is a median of runs in turn (ours, peer, ours, peer
// …), so that what else the machine does meets both alike. There are no limits
// to pass: figures of a shared machine are for people to look at.
package bench

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Line is one comparison.
type Line struct {
	Name   string
	Unit   string   // of the figures: "MiB/s", "s"
	Better string   // "more" or "less"
	Notes  []string // what was compared with what, a sentence each
	Ours   []float64
	Peer   []float64
}

// WriteTo writes the notes and the line itself:
//
//	# NAME: UNIT, more is better
//	# NOTE
//	bench NAME ours=1.0 peer=2.0 ratio=0.50 (UNIT, …)
//
// ratio is ours by peer.
func (l Line) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s: %s, %s is better\n", l.Name, l.Unit, l.Better)
	for _, note := range l.Notes {
		fmt.Fprintf(&b, "# %s\n", note)
	}
	ours, peer := median(l.Ours), median(l.Peer)
	ratio := "none"
	if peer != 0 {
		ratio = fmt.Sprintf("%.2f", ours/peer)
	}
	fmt.Fprintf(&b, "bench %s ours=%s peer=%s ratio=%s (%s; ", l.Name, figure(ours), figure(peer), ratio, l.Unit)
	if len(l.Ours) == 1 {
		b.WriteString("one run)\n")
	} else {
		fmt.Fprintf(&b, "medians of %d; ours %s, peer %s)\n", len(l.Ours), span(l.Ours), span(l.Peer))
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// median is the middle one, of an even number the mean of the two in the
// middle, of none 0.
func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	switch n := len(s); {
	case n == 0:
		return 0
	case n%2 == 1:
		return s[n/2]
	default:
		return (s[n/2-1] + s[n/2]) / 2
	}
}

// span is the smallest and the largest.
func span(v []float64) string {
	if len(v) == 0 {
		return "none"
	}
	return figure(slices.Min(v)) + "–" + figure(slices.Max(v))
}

// figure shows three digits, which is more than runs agree in.
func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// measure is one run, which gives one figure.
type measure func(ctx context.Context) (float64, error)

// rival is a peer that ours is compared with, and the line of it.
type rival struct {
	line    *Line
	measure measure
}

// inTurn runs ours and peer one after the other, n times, and tells each pair.
func (l *Line) inTurn(ctx context.Context, n int, ours, peer measure, log io.Writer) error {
	return inTurn(ctx, n, ours, []rival{{l, peer}}, log)
}

// inTurn runs ours and then each rival, n times, and tells the pairs. So ours
// is the same runs in all lines.
func inTurn(ctx context.Context, n int, ours measure, rivals []rival, log io.Writer) error {
	for i := range n {
		o, err := ours(ctx)
		if err != nil {
			return fmt.Errorf("%s, run %d, ours: %w", rivals[0].line.Name, i+1, err)
		}
		for _, r := range rivals {
			l := r.line
			p, err := r.measure(ctx)
			if err != nil {
				return fmt.Errorf("%s, run %d, peer: %w", l.Name, i+1, err)
			}
			l.Ours, l.Peer = append(l.Ours, o), append(l.Peer, p)
			fmt.Fprintf(log, "  %s %d of %d: ours %s, peer %s %s\n", l.Name, i+1, n, figure(o), figure(p), l.Unit)
		}
	}
	return nil
}
