package bench

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestLine(t *testing.T) {
	for _, c := range []struct {
		name string
		line Line
		want string
	}{
		{"medians and spans",
			Line{Name: "x", Unit: "MiB/s", Better: "more", Notes: []string{"Peer: y."}, Ours: []float64{150, 9, 1000}, Peer: []float64{100, 300, 99.94}},
			"# x: MiB/s, more is better\n# Peer: y.\nbench x ours=150 peer=100 ratio=1.50 (MiB/s; medians of 3; ours 9.00–1000, peer 99.9–300)\n"},
		{"an even number",
			Line{Name: "x", Unit: "s", Better: "less", Ours: []float64{4, 1, 2, 3}, Peer: []float64{5, 5, 5, 5}},
			"# x: s, less is better\nbench x ours=2.50 peer=5.00 ratio=0.50 (s; medians of 4; ours 1.00–4.00, peer 5.00–5.00)\n"},
		{"one run",
			Line{Name: "x", Unit: "s", Better: "less", Ours: []float64{300}, Peer: []float64{100}},
			"# x: s, less is better\nbench x ours=300 peer=100 ratio=3.00 (s; one run)\n"},
		{"a peer that did nothing",
			Line{Name: "x", Unit: "1/s", Better: "more", Ours: []float64{300}, Peer: []float64{0}},
			"# x: 1/s, more is better\nbench x ours=300 peer=0.00 ratio=none (1/s; one run)\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			if n, err := c.line.WriteTo(&b); err != nil || n != int64(len(c.want)) {
				t.Errorf("%d bytes, %v", n, err)
			}
			if b.String() != c.want {
				t.Errorf("got\n%swant\n%s", b.String(), c.want)
			}
		})
	}
}

func TestInTurn(t *testing.T) {
	var order []string
	next := 0.0
	run := func(who string) measure {
		return func(context.Context) (float64, error) {
			order = append(order, who)
			next++
			return next, nil
		}
	}
	l := Line{Name: "x", Unit: "s"}
	var log strings.Builder
	if err := l.inTurn(t.Context(), 2, run("ours"), run("peer"), &log); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(order, " "); got != "ours peer ours peer" {
		t.Errorf("the order was %s", got)
	}
	if !slices.Equal(l.Ours, []float64{1, 3}) || !slices.Equal(l.Peer, []float64{2, 4}) {
		t.Errorf("ours %v, peer %v", l.Ours, l.Peer)
	}
	if want := "  x 2 of 2: ours 3.00, peer 4.00 s\n"; !strings.HasSuffix(log.String(), want) {
		t.Errorf("told %q", log.String())
	}
	broken := errors.New("it broke")
	err := l.inTurn(t.Context(), 2, run("ours"), func(context.Context) (float64, error) { return 0, broken }, &log)
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "x, run 1, peer") {
		t.Error(err)
	}
}

// With two peers ours is measured once for both.
func TestInTurnWithTwo(t *testing.T) {
	var order []string
	run := func(who string, figure float64) measure {
		return func(context.Context) (float64, error) {
			order = append(order, who)
			return figure, nil
		}
	}
	x, y := Line{Name: "x"}, Line{Name: "y"}
	if err := inTurn(t.Context(), 2, run("ours", 1), []rival{{&x, run("x", 2)}, {&y, run("y", 3)}}, io.Discard); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(order, " "); got != "ours x y ours x y" {
		t.Errorf("the order was %s", got)
	}
	if !slices.Equal(x.Ours, []float64{1, 1}) || !slices.Equal(x.Peer, []float64{2, 2}) || !slices.Equal(y.Ours, x.Ours) || !slices.Equal(y.Peer, []float64{3, 3}) {
		t.Errorf("got %v and %v", x, y)
	}
	broken := errors.New("it broke")
	err := inTurn(t.Context(), 2, func(context.Context) (float64, error) { return 0, broken }, []rival{{&x, run("x", 2)}}, io.Discard)
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "x, run 1, ours") {
		t.Error(err)
	}
}
