package config

import (
	"testing"

	"github.com/rackseed/rackseed/services/ignition"
)

func TestRegistry(t *testing.T) {
	files, err := Registry{}.Contribute(input(false))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range files {
		if f.Mode != 0o644 {
			t.Errorf("%s has mode %04o", f.Path, f.Mode)
		}
		got[f.Path] = string(f.Contents)
	}
	const dir = "/etc/containerd/certs.d/rackseed.local/"
	want := map[string]string{
		dir + "ca.crt":     "secret console.crt\n",
		dir + "hosts.toml": "server = \"https://rackseed.local\"\nca = \"" + dir + "ca.crt\"\ncapabilities = [\"pull\", \"resolve\", \"push\"]\n",
	}
	for path, content := range want {
		if got[path] != content {
			t.Errorf("%s is\n%s\nwant\n%s", path, got[path], content)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d files, want %d", len(got), len(want))
	}
	in := input(false)
	in.Secrets = func(string) ([]byte, bool) { return nil, false }
	if _, err := (Registry{}).Contribute(in); err == nil {
		t.Error("a node would not trust the registry, and nobody was told")
	}
	// What nodes lack of their own images is looked for in the registry.
	if ImageRepository != ignition.RegistryHost {
		t.Errorf("Kubernetes' images are of %s, the registry is %s", ImageRepository, ignition.RegistryHost)
	}
}
