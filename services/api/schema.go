package api

import (
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

func typeOf(v any) reflect.Type { return reflect.TypeOf(v) }

// schemaName names a type in the OpenAPI document and in TypeScript: as Go
// does, and List[machine.Lease] as LeaseList.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	if rest, ok := strings.CutPrefix(name, "List"); ok && rest != "" && t.Kind() == reflect.Struct && strings.HasPrefix(t.Name(), "List[") {
		return rest + "List"
	}
	return name
}
