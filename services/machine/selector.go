package machine

import "reflect"

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
