// Command gen writes what follows from the API's Go types: the OpenAPI
// document and the console's TypeScript. Run it by go generate in the folder
// above; a test fails when what is committed differs.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/rackseed/rackseed/services/api"
)

// Where the files are, from the folder of the API.
const (
	specFile       = "../../docs/openapi.json"
	typeScriptFile = "../../console/web/src/api.gen.ts"
)

func main() {
	if err := run("."); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// run writes both files; dir is the folder of the API.
func run(dir string) error {
	files, err := generate()
	if err != nil {
		return err
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generate makes the files' contents.
func generate() (map[string][]byte, error) {
	spec, err := api.Spec()
	if err != nil {
		return nil, err
	}
	ts, err := typeScript(spec)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{specFile: spec, typeScriptFile: ts}, nil
}
