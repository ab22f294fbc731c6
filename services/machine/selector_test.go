package machine

import "testing"

func TestSelector(t *testing.T) {
	r650 := &Inventory{
		Manufacturer: "Dell Inc.", Product: "PowerEdge R650", Serial: "8XYZ123", AssetTag: "RZ-2/17 ",
		CPU: CPU{Threads: 64}, MemoryBytes: 256 << 30,
	}
	for name, c := range map[string]struct {
		selector  Selector
		inventory *Inventory
		labels    map[string]string
		want      bool
		text      string
	}{
		"none":            {Selector{}, r650, map[string]string{"rack": "r7"}, false, "none"},
		"no labels":       {Selector{Labels: map[string]string{}}, r650, nil, false, "none"},
		"manufacturer":    {Selector{Manufacturer: "dell*"}, r650, nil, true, "manufacturer dell*"},
		"whole text":      {Selector{Manufacturer: "Dell"}, r650, nil, false, "manufacturer Dell"},
		"product":         {Selector{Product: "PowerEdge R6?0"}, r650, nil, true, "product PowerEdge R6?0"},
		"a class":         {Selector{Product: "*R[67]50"}, r650, nil, true, "product *R[67]50"},
		"serial":          {Selector{Serial: "8xyz*"}, r650, nil, true, "serial number 8xyz*"},
		"a slash":         {Selector{AssetTag: "RZ-*"}, r650, nil, true, "asset tag RZ-*"},
		"its own slash":   {Selector{AssetTag: "rz-2/*"}, r650, nil, true, "asset tag rz-2/*"},
		"no pattern":      {Selector{Product: "[R"}, r650, nil, false, "product [R"},
		"enough":          {Selector{MinCPUs: 64, MinMemory: 256 << 30}, r650, nil, true, "at least 64 CPUs and at least 256GiB of memory"},
		"too few":         {Selector{MinCPUs: 65}, r650, nil, false, "at least 65 CPUs"},
		"too little":      {Selector{MinMemory: 256<<30 + 1}, r650, nil, false, "at least 274877906945B of memory"},
		"label":           {Selector{Labels: map[string]string{"rack": "r7"}}, r650, map[string]string{"rack": "r7", "row": "1"}, true, "label rack=r7"},
		"another label":   {Selector{Labels: map[string]string{"rack": "r7"}}, r650, map[string]string{"rack": "r8"}, false, "label rack=r7"},
		"no such label":   {Selector{Labels: map[string]string{"rack": ""}}, r650, nil, false, "label rack="},
		"not looked at":   {Selector{Labels: map[string]string{"rack": "r7"}}, nil, map[string]string{"rack": "r7"}, true, "label rack=r7"},
		"hardware needed": {Selector{Labels: map[string]string{"rack": "r7"}, MinCPUs: 1}, nil, map[string]string{"rack": "r7"}, false, "at least 1 CPUs and label rack=r7"},
		"all must match": {Selector{Manufacturer: "Dell*", Product: "ProLiant*", Labels: map[string]string{"b": "2", "a": "1"}}, r650, map[string]string{"a": "1", "b": "2"}, false,
			"manufacturer Dell* and product ProLiant* and label a=1 and label b=2"},
	} {
		if got := c.selector.Matches(c.inventory, c.labels); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if got := c.selector.String(); got != c.text {
			t.Errorf("%s: %q, want %q", name, got, c.text)
		}
	}
}
