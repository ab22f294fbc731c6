package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestWithBenchmarks(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a_test.go": "package a\n\nfunc TestA(t *testing.T) {}\n",
		"b_test.go": "package a\n\nfunc BenchmarkB(b *testing.B) {}\n",
		"c_test.go": "package a\n\n// see func BenchmarkB\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	listed := fmt.Sprintf(`{"Dir": %[1]q, "ImportPath": "x/none"}
{"Dir": %[1]q, "ImportPath": "x/test", "TestGoFiles": ["a_test.go", "c_test.go"]}
{"Dir": %[1]q, "ImportPath": "x/in", "TestGoFiles": ["a_test.go", "b_test.go"]}
{"Dir": %[1]q, "ImportPath": "x/out", "XTestGoFiles": ["b_test.go"]}
`, dir)
	got, err := withBenchmarks([]byte(listed))
	if want := []string{"x/in", "x/out"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if _, err := withBenchmarks([]byte(listed + "{")); err == nil {
		t.Error("half a list was read")
	}
}
