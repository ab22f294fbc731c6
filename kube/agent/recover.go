package agent

import (
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/services/durable"
	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/recovery"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

const (
	// stoppedManifest is where the replica's manifest is while the kubelet must not
	// see it.
	stoppedManifest = config.ServiceFolder + ".stopped.yaml"
	// stoppedLock is held by who stopped the replica, until it is started again. The
	// kernel drops it with that process, and the node agent then starts the replica.
	stoppedLock = config.ServiceFolder + ".stopped.lock"
)

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
	var stopped io.Closer
	return recovery.Host{
		Data: h.path(config.ServiceFolder), Socket: h.path(config.ServiceSocket),
		Node: recovery.Node{Machine: c.Machine, Name: c.Name, Endpoint: netip.AddrPortFrom(c.Address.Addr(), peer.PortNumber).String()},
		Stop: func() (err error) {
			lock := h.path(stoppedLock)
			if err := os.MkdirAll(filepath.Dir(lock), 0o755); err != nil { // no replica was here yet
				return err
			}
			if stopped, err = state.Lock(lock); err != nil {
				return err
			}
			return h.moveManifest(config.ServiceManifest, stoppedManifest)
		},
		Start: func() error { return errors.Join(h.startStopped(), stopped.Close()) },
	}, nil
}

// startStopped has the kubelet see the replica's manifest again. One that the node
// agent wrote meanwhile is the newer one.
func (h host) startStopped() error {
	if h.exists(config.ServiceManifest) {
		return durable.Remove(h.path(stoppedManifest))
	}
	return h.moveManifest(stoppedManifest, config.ServiceManifest)
}

// startAbandoned starts a replica that was stopped by a process which is gone: cut off
// with its terminal, or with the machine's power. No answer of the boot service is
// needed for that: this replica may be the one that is missing to a majority. busy: it
// is stopped, and whoever did it is still at it.
func (h host) startAbandoned() (started, busy bool, err error) {
	if !h.exists(stoppedManifest) {
		return false, false, nil
	}
	held, err := state.Lock(h.path(stoppedLock))
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return false, true, nil
	case err != nil:
		return false, false, err
	}
	err = errors.Join(h.startStopped(), held.Close())
	return err == nil, false, err
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
