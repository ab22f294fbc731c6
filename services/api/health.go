package api

import "slices"

// servingParts are the parts of the boot service without which no machine is
// served.
var servingParts = []string{"address", "dhcp", "tftp", "netboot", "machines", "images", "output", "storage"}

// Serving says whether no machine is served while that part does not work.
func Serving(part string) bool { return slices.Contains(servingParts, part) }

// Passing is true of a part that only waits for its turn, or is slow: nobody has to
// act.
func (k HealthKind) Passing() bool {
	switch k {
	case HealthStarting, HealthWaiting, HealthListening, HealthSlow:
		return true
	}
	return false
}

// HealthOf is the health of a part. Of what is not ok, kind says why; none: a
// fault.
func HealthOf(part string, ok bool, text string, kind ...HealthKind) Health {
	h := Health{Name: part, OK: ok, Text: text}
	if !ok {
		h.Kind = HealthFault
		if len(kind) > 0 {
			h.Kind = kind[0]
		}
		h.Grave = Serving(part) && !h.Kind.Passing()
	}
	return h
}
