package api

import "testing"

func TestHealthOf(t *testing.T) {
	for _, c := range []struct {
		part string
		ok   bool
		kind []HealthKind
		want Health
	}{
		{"dhcp", true, nil, Health{OK: true}},
		{"dhcp", true, []HealthKind{HealthSlow}, Health{OK: true}},
		{"dhcp", false, nil, Health{Kind: HealthFault, Grave: true}},
		{"dhcp", false, []HealthKind{HealthListening}, Health{Kind: HealthListening}},
		{"tftp", false, []HealthKind{HealthWaiting}, Health{Kind: HealthWaiting}},
		{"images", false, []HealthKind{HealthStarting}, Health{Kind: HealthStarting}},
		{"storage", false, []HealthKind{HealthSlow}, Health{Kind: HealthSlow}},
		{"storage", false, nil, Health{Kind: HealthFault, Grave: true}},
		{"netboot", false, []HealthKind{HealthVolatile}, Health{Kind: HealthVolatile, Grave: true}},
		{"ntp", false, nil, Health{Kind: HealthFault}},
	} {
		c.want.Name, c.want.Text = c.part, "a text"
		if got := HealthOf(c.part, c.ok, "a text", c.kind...); got != c.want {
			t.Errorf("%s, %v, %v: %+v, want %+v", c.part, c.ok, c.kind, got, c.want)
		}
	}
}
