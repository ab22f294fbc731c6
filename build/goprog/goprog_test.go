package goprog

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/build/step"
)

func TestEnvKeepsProxiesAndDropsWhatChangesOutput(t *testing.T) {
	env := Env([]string{"GOPROXY=p", "HOME=/h", "GOFLAGS=-race", "CGO_CFLAGS=-O0", "CC=clang", "GOEXPERIMENT=x"}, false)
	for _, want := range []string{"GOPROXY=p", "HOME=/h", "CGO_ENABLED=0", "GOAMD64=v1", "GOWORK=off"} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is missing in %v", want, env)
		}
	}
	for _, kv := range env {
		if kv == "GOFLAGS=-race" || kv == "CC=clang" || strings.HasPrefix(kv, "CGO_CFLAGS") || strings.HasPrefix(kv, "GOEXPERIMENT") {
			t.Errorf("%s was kept", kv)
		}
	}
}

func TestMainFiles(t *testing.T) {
	list := `{"Dir":"/usr/lib/go/fmt","GoFiles":["print.go"]}
{"Dir":"/mod/x@v1","Module":{"Path":"x"},"GoFiles":["x.go"]}
{"Dir":"/r/b","Module":{"Path":"r","Main":true},"GoFiles":["b.go"],"EmbedFiles":["data/z.txt"]}
{"Dir":"/r","Module":{"Path":"r","Main":true},"GoFiles":["main.go"]}`
	got, err := mainFiles("/r", []byte(list))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"b/b.go", "b/data/z.txt", "main.go"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := mainFiles("/r", []byte(`{"Dir":`)); err == nil {
		t.Error("a cut off list was taken")
	}
}

// A module of its own, built twice, must give the same bytes, whatever folder
// it lies in and whatever the builder's GOFLAGS say.
func TestBuildIsIndependentOfPlace(t *testing.T) {
	var programs [][]byte
	for _, flags := range []string{"", "-tags=other"} {
		t.Setenv("GOFLAGS", flags)
		repo := t.TempDir()
		write(t, filepath.Join(repo, "m/go.mod"), "module example.test/m\n\ngo 1.26.0\n")
		write(t, filepath.Join(repo, "m/main.go"), "package main\n\nimport \"os\"\n\nfunc main() { os.Stdout.WriteString(\"hello\") }\n")
		write(t, filepath.Join(repo, "m/other.go"), "//go:build other\n\npackage main\n\nfunc init() { panic(\"GOFLAGS got in\") }\n")
		in, err := ModuleInput(repo, "m")
		if err != nil {
			t.Fatal(err)
		}
		cache := &step.Cache{Dir: t.TempDir(), Progress: t.Output()}
		dir, err := cache.Get(t.Context(), Step(repo, Set{Name: "m", Module: "m", Packages: map[string]string{"hello": "."}}, in))
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(filepath.Join(dir, "hello")).Output()
		if err != nil || string(out) != "hello" {
			t.Fatalf("the program says %q, %v", out, err)
		}
		b, err := os.ReadFile(filepath.Join(dir, "hello"))
		if err != nil {
			t.Fatal(err)
		}
		programs = append(programs, b)
	}
	if !bytes.Equal(programs[0], programs[1]) {
		t.Error("two builds of the same sources differ")
	}
}

func TestMissingHeaderSaysWhatToDo(t *testing.T) {
	c := &CLibraries{Headers: []string{"blkid"}}
	_, err := c.prepare(t.TempDir(), t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "blkid") || !strings.Contains(err.Error(), "-dev package") {
		t.Errorf("got %v", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
