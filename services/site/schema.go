package site

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/rackseed/rackseed/services/machine"
)

// Schema is the JSON schema (draft 2020-12) of a site file, generated from
// machine.Site, indented. Editors use it to complete and check while typing;
// Parse checks more.
func Schema() ([]byte, error) {
	registry := huma.NewMapRegistry("#/$defs/", func(t reflect.Type, hint string) string {
		if t.Name() == "" {
			return hint
		}
		return t.Name()
	})
	registry.Schema(reflect.TypeFor[machine.Site](), true, "Site")

	others := map[string]*huma.Schema{}
	for name, def := range registry.Map() {
		if name != "Site" {
			others[name] = def
		}
	}
	raw, err := json.Marshal(registry.Map()["Site"])
	if err != nil {
		return nil, fmt.Errorf("schema of the site file: %w", err)
	}
	var root map[string]any
	if err := json.Unmarshal(raw, &root); err != nil {
		return nil, fmt.Errorf("schema of the site file: %w", err)
	}
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Rackseed site file"
	root["$defs"] = others
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("schema of the site file: %w", err)
	}
	return append(text, '\n'), nil
}
