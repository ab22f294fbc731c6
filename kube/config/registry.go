package config

import (
	"errors"
	"path"

	"github.com/rackseed/rackseed/services/ignition"
)

const (
	// CertsDir is where containerd looks for settings of registries, by their
	// names; the image's configuration says so (config_path).
	CertsDir = "/etc/containerd/certs.d"

	consoleCertificate = "console.crt" // the secret's name
)

// Registry gives every node containerd's settings for the boot service's
// registry.
//
// There is no _default: with it, whatever a pod names would be looked for here
// first, and somebody's nginx pushed here would be run as docker.io's. Other
// registries are as containerd has them by itself; a profile's Ignition may add
// files beside these.
type Registry struct{}

var _ ignition.Contributor = Registry{}

// Contribute pins the console's certificate: nodes trust it alone, by the name
// that is in it and in their /etc/hosts.
func (Registry) Contribute(in ignition.Input) ([]ignition.File, error) {
	crt, found := in.Secrets(consoleCertificate)
	if !found {
		return nil, errors.New("the console's certificate is missing in the state: nodes could not trust the registry")
	}
	dir := path.Join(CertsDir, ignition.RegistryHost)
	return []ignition.File{
		{Path: path.Join(dir, "ca.crt"), Mode: 0o644, Contents: crt},
		{Path: path.Join(dir, "hosts.toml"), Mode: 0o644, Contents: []byte(registryHosts)},
	}, nil
}

// registryHosts is hosts.toml of containerd
// (https://github.com/containerd/containerd/blob/v2.4.2/docs/hosts.md). Pulling
// needs no credentials; a push from a node brings them.
const registryHosts = `server = "https://` + ignition.RegistryHost + `"
ca = "` + CertsDir + `/` + ignition.RegistryHost + `/ca.crt"
capabilities = ["pull", "resolve", "push"]
`
