package bench

import (
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

func TestFromResetToReady(t *testing.T) {
	at := func(s int, kind string) machine.Event {
		return machine.Event{Time: time.Date(2026, 11, 24, 12, 0, s, 0, time.UTC), Kind: kind}
	}
	for _, c := range []struct {
		name   string
		events []machine.Event
		want   time.Duration // 0: an error
	}{
		{"a story", []machine.Event{at(1, "dhcp.ack"), at(2, "install.done"), at(9, "node.boot"), at(30, "node.ready"), at(40, "node.ready")}, 28 * time.Second},
		{"installed twice", []machine.Event{at(2, "install.done"), at(12, "install.done"), at(30, "node.ready")}, 18 * time.Second},
		{"ready before", []machine.Event{at(2, "node.ready"), at(12, "install.done")}, 0},
		{"nothing", nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := fromResetToReady(c.events)
			if got != c.want || (err == nil) != (c.want != 0) {
				t.Errorf("got %v, %v; want %v", got, err, c.want)
			}
		})
	}
}
