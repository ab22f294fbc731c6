package bench

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestDaemon(t *testing.T) {
	dir := t.TempDir()
	d, err := start("sh", exec.Command("sh", "-c", `echo up; touch "$0"; while :; do sleep 0.05; done`, filepath.Join(dir, "ready")), filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.await(t.Context(), func(context.Context) error {
		_, err := os.Stat(filepath.Join(dir, "ready"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}
}

func TestDaemonThatFails(t *testing.T) {
	notYet := errors.New("nothing answers")
	d, err := start("sh", exec.Command("sh", "-c", "echo no such file; exit 3"), filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	err = d.await(t.Context(), func(context.Context) error { return notYet })
	if !errors.Is(err, notYet) || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("awaiting it: %v", err)
	}
	if err := d.stop(); err == nil || !strings.Contains(err.Error(), "before its time") {
		t.Errorf("stopping it: %v", err)
	}
}
