package ignition

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	config "github.com/coreos/ignition/v2/config/v3_6"
	"github.com/coreos/ignition/v2/config/v3_6/types"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

// Assemble makes a machine's Ignition: what every node gets, what contributors
// add, then the profile's own merged over it. The result was checked by the
// Ignition library. Errors name the machine or the profile.
func Assemble(in Input, contributors ...Contributor) ([]byte, error) {
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("machine %s: Ignition: %w", in.Machine.ID, err)
	}
	files, err := ownFiles(in)
	if err != nil {
		return fail(err)
	}
	for _, c := range contributors {
		more, err := c.Contribute(in)
		if err != nil {
			return fail(err)
		}
		files = append(files, more...)
	}
	base, err := baseConfig(files)
	if err != nil {
		return fail(err)
	}
	snippet, _, err := parseSnippet(in.Profile)
	if err != nil {
		return fail(err)
	}
	out, err := json.Marshal(config.Merge(base, snippet))
	if err != nil {
		return fail(err)
	}
	// Two valid configs may merge to an invalid one, as by a link in the way.
	if _, found, err := config.Parse(out); err != nil || found.IsFatal() {
		e := profileError(in.Profile.Name, found, err)
		for i := range e.Problems {
			// Places in the merged text, which nobody has before them.
			e.Problems[i].Line, e.Problems[i].Column = 0, 0
		}
		return fail(fmt.Errorf("merged into the machine's own: %w", e))
	}
	return out, nil
}

// Check says what is wrong with a profile's Ignition, before any machine is
// given the profile: the error is a *ProfileError, or wraps one. warnings are those
// of Warnings.
func Check(p machine.Profile) (warnings []Problem, err error) {
	_, warnings, err = parseSnippet(p)
	if err != nil {
		return nil, err
	}
	if _, err = Assemble(specimen(p)); err != nil {
		return nil, err
	}
	return warnings, nil
}

// Warnings are what is odd in a profile's Ignition that passed Check, as keys that
// the library does not know.
func Warnings(p machine.Profile) []Problem {
	_, odd, _ := parseSnippet(p) // what has a fault has no warnings
	return odd
}

// ownFiles are what every node gets.
func ownFiles(in Input) ([]File, error) {
	m := in.Machine
	if m.Name == "" {
		return nil, errors.New("it has no name: approve it with one")
	}
	if len(in.NodeSeed) != 32 {
		return nil, fmt.Errorf("its node key's seed has %d bytes, 32 are expected: approve it again", len(in.NodeSeed))
	}
	net, err := networkOf(in)
	if err != nil {
		return nil, err
	}
	node, err := json.MarshalIndent(wire.NodeConfig{
		URL: in.ServiceURL, Machine: m.ID, Name: m.Name, Role: in.Profile.Role,
		Address: net.address, Service: in.Site.ServiceAddress, KeySeed: in.NodeSeed,
		PodSubnet: in.Site.Cluster.PodSubnet, ServiceSubnet: in.Site.Cluster.ServiceSubnet,
		Emulated: in.Site.Emulated,
	}, "", "  ")
	if err != nil {
		return nil, err
	}
	return []File{
		{"/etc/hostname", 0o644, []byte(m.Name + "\n")},
		{"/etc/hosts", 0o644, []byte(net.hosts(m.Name, in.Site.ServiceAddress))},
		{"/etc/resolv.conf", 0o644, []byte(net.resolvConf())},
		{pathNetwork, 0o644, []byte(net.networkFile())},
		{pathNetworkd, 0o644, []byte(networkdFile)},
		{wire.PathNodeConfig, 0o600, append(node, '\n')},
		{wire.PathAuthorizedKeys, 0o600, wire.AuthorizedKeys(in.Site.SSHKeys)},
	}, nil
}

// baseConfig is the machine's config before its profile's is merged in. Files
// are in the order of their paths, whatever order they came in.
func baseConfig(files []File) (types.Config, error) {
	c := types.Config{Ignition: types.Ignition{Version: types.MaxVersion.String()}}
	files = slices.Clone(files)
	slices.SortStableFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	for i, f := range files {
		switch {
		case !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path:
			return c, fmt.Errorf("file %q: an absolute, clean path is expected", f.Path)
		case i > 0 && files[i-1].Path == f.Path:
			return c, fmt.Errorf("file %s: it is contributed twice", f.Path)
		case f.Mode&^fs.ModePerm != 0:
			return c, fmt.Errorf("file %s: mode %v: permission bits alone are expected", f.Path, f.Mode)
		}
		c.Storage.Files = append(c.Storage.Files, types.File{
			// The image brings a file of its own at some of these paths.
			Node: types.Node{Path: f.Path, Overwrite: new(true)},
			FileEmbedded1: types.FileEmbedded1{
				Mode:     new(int(f.Mode)),
				Contents: types.Resource{Source: new(dataURL(f.Contents))},
			},
		})
	}
	return c, nil
}

// dataURL is RFC 2397.
func dataURL(b []byte) string { return "data:;base64," + base64.StdEncoding.EncodeToString(b) }
