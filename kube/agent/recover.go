package agent

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/services/durable"
	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/recovery"
	"github.com/rackseed/rackseed/services/wire"
)

// stoppedManifest is where the replica's manifest is while the kubelet must not see
// it.
const stoppedManifest = config.ServiceFolder + ".stopped.yaml"

// RecoveryHost is this machine as one with a replica; fs.ErrNotExist: it is no node.
func RecoveryHost() (recovery.Host, error) { return host{"/"}.recoveryHost() }

func (h host) recoveryHost() (recovery.Host, error) {
	b, err := os.ReadFile(h.path(wire.PathNodeConfig))
	if err != nil {
		return recovery.Host{}, err
	}
	c, err := wire.ParseNodeConfig(b)
	if err != nil {
		return recovery.Host{}, err
	}
	return recovery.Host{
		Data: h.path(config.ServiceFolder), Socket: h.path(config.ServiceSocket),
		Node: recovery.Node{Machine: c.Machine, Name: c.Name, Endpoint: netip.AddrPortFrom(c.Address.Addr(), peer.PortNumber).String()},
		Stop: func() error { return h.moveManifest(config.ServiceManifest, stoppedManifest) },
		Start: func() error {
			return h.moveManifest(stoppedManifest, config.ServiceManifest)
		},
	}, nil
}

// moveManifest moves the static pod's manifest, unless that was done before: the
// kubelet ends the pod, or starts it. The two folders may be on different file systems.
func (h host) moveManifest(from, to string) error {
	b, err := os.ReadFile(h.path(from))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = writeFile(h.path(to), b, 0o600)
	}
	if err != nil {
		return err
	}
	return durable.Remove(h.path(from))
}
