package machine

// BootKind is what a machine boots next.
type BootKind string

const (
	BootLocal     BootKind = "local"     // its own disk
	BootDiscovery BootKind = "discovery" // the installer, which only looks
	BootInstall   BootKind = "install"   // the installer, with an intent open for it
)

// BootDecision is what a machine boots next, and why.
type BootDecision struct {
	Kind   BootKind `json:"kind"`
	Reason string   `json:"reason"`
}

// NextBoot decides what a machine boots next. It is the only place where that
// is decided: scripts, menus and DHCP replies follow from it.
//
// m is nil for a machine never seen; intent is its newest install intent, or
// nil. A known machine without a live intent boots its own disk, so that a
// production server that reboots on this wire comes back as it was. Known is
// one whose inventory was taken; discovery, which only looks, is for the
// others, and for those that have nothing to boot: their disks are empty, or
// their install was broken off.
func NextBoot(m *Machine, intent *Intent) BootDecision {
	switch {
	case m == nil:
		return BootDecision{BootDiscovery, "never seen before"}
	case intent.Live():
		return BootDecision{BootInstall, "install intent " + intent.ID + " is " + string(intent.Status)}
	case intent != nil && intent.Status == IntentDone:
		return BootDecision{BootLocal, "installed by intent " + intent.ID}
	case intent != nil:
		return BootDecision{BootDiscovery, "its install was broken off, so that its disk may not be whole"}
	case m.Inventory == nil:
		return BootDecision{BootDiscovery, "seen, and not looked at yet"}
	case m.Inventory.Occupied(DiskHint{}) == nil:
		return BootDecision{BootDiscovery, "not installed yet, and nothing is on its disks"}
	default:
		return BootDecision{BootLocal, "known, not approved, and its disk is not empty: approve it in the console, or forget it to have it looked at again"}
	}
}
