package machine

import (
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// IsZero says whether the selector chooses nothing.
func (s Selector) IsZero() bool {
	return reflect.ValueOf(s).IsZero() || reflect.DeepEqual(s, Selector{Labels: map[string]string{}})
}

// Matches says whether the selector chooses a machine: by its inventory (nil
// while nobody has looked at it) and the labels of its entry in the list.
func (s Selector) Matches(i *Inventory, labels map[string]string) bool {
	if s.IsZero() {
		return false
	}
	for k, v := range s.Labels {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	byHardware := s.Manufacturer != "" || s.Product != "" || s.Serial != "" || s.AssetTag != "" || s.MinCPUs > 0 || s.MinMemory > 0
	if i == nil {
		return !byHardware
	}
	for pattern, text := range map[*string]string{&s.Manufacturer: i.Manufacturer, &s.Product: i.Product, &s.Serial: i.Serial, &s.AssetTag: i.AssetTag} {
		if *pattern != "" && !glob(*pattern, text) {
			return false
		}
	}
	return i.CPU.Threads >= s.MinCPUs && i.MemoryBytes >= uint64(s.MinMemory)
}

// String names what the selector asks for: "product PowerEdge R6* and label
// rack=r7".
func (s Selector) String() string {
	var parts []string
	add := func(name, value string, set bool) {
		if set {
			parts = append(parts, name+" "+value)
		}
	}
	add("manufacturer", s.Manufacturer, s.Manufacturer != "")
	add("product", s.Product, s.Product != "")
	add("serial number", s.Serial, s.Serial != "")
	add("asset tag", s.AssetTag, s.AssetTag != "")
	add("at least", strconv.Itoa(s.MinCPUs)+" CPUs", s.MinCPUs > 0)
	add("at least", s.MinMemory.String()+" of memory", s.MinMemory > 0)
	for _, k := range slices.Sorted(maps.Keys(s.Labels)) {
		add("label", k+"="+s.Labels[k], true)
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, " and ")
}
