package simulate

import (
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/wire"
)

// ErrNoNode says that a machine has no node yet.
var ErrNoNode = errors.New("no node is installed on it")

// Node is the configuration of the node that was installed; call it once Run
// has returned.
func (m *Machine) Node() (wire.NodeConfig, error) {
	if m.installed == nil {
		return wire.NodeConfig{}, fmt.Errorf("machine %s: %w", m.Inventory.BootMAC, ErrNoNode)
	}
	return m.installed.Node, nil
}

// asker is a node that asks whether it runs a replica of the boot service.
func (m *Machine) asker() (*node, error) {
	c, err := m.Node()
	if err != nil {
		return nil, err
	}
	return &node{Machine: m, config: c, key: ed25519.NewKeyFromSeed(c.KeySeed), http: &http.Client{Timeout: nodeReply, Transport: m.Transport}}, nil
}

// ReplicaOrder asks whether its node runs a replica of the boot service; has is the one
// that it has, zero: none.
func (m *Machine) ReplicaOrder(ctx context.Context, has peer.Name) (order wire.ReplicaOrder, err error) {
	n, err := m.asker()
	if err != nil {
		return order, err
	}
	defer n.http.CloseIdleConnections()
	path := wire.PathNodeReplica
	if has.ID != "" {
		path += "?" + url.Values{"replica": {has.ID}, "generation": {strconv.FormatUint(has.Generation, 10)}}.Encode()
	}
	return order, n.call(ctx, http.MethodGet, path, nil, &order)
}

// ReplicaSecret asks for what its replica joins by.
func (m *Machine) ReplicaSecret(ctx context.Context) (secret wire.ReplicaSecret, err error) {
	n, err := m.asker()
	if err != nil {
		return secret, err
	}
	defer n.http.CloseIdleConnections()
	seal, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return secret, err
	}
	var sealed wire.Sealed
	if err := n.call(ctx, http.MethodPost, wire.PathNodeReplica, wire.JoinRequest{SealKey: seal.PublicKey().Bytes()}, &sealed); err != nil {
		return secret, err
	}
	plain, err := wire.Open(seal, wire.ReplicaPurpose(string(n.config.Machine)), sealed)
	if err != nil {
		return secret, err
	}
	return secret, json.Unmarshal(plain, &secret)
}
