package config

import (
	"errors"
	"fmt"

	"sigs.k8s.io/yaml"

	"github.com/rackseed/rackseed/services/wire"
)

// JoinTemplate renders what a node's JoinConfiguration is made from: all of it
// but where the cluster is and the token. controlPlane: it joins as a further
// control plane, whose certificates are signed on the node by the authorities
// that are there, so that none is downloaded.
func JoinTemplate(n Node, controlPlane bool) ([]byte, error) {
	registration, err := n.registration()
	if err != nil {
		return nil, err
	}
	join := joinConfiguration{
		typeMeta:         typeMeta{"kubeadm.k8s.io/v1beta4", "JoinConfiguration"},
		NodeRegistration: registration,
	}
	if controlPlane {
		join.ControlPlane = &joinControlPlane{endpoint{n.Address.String(), APIPort}}
		join.Patches = &patches{PatchesDir}
	}
	if n.Emulated {
		join.Timeouts = emulatedTimeouts()
	}
	return stream(join)
}

// Join completes a template with what one attempt joins by. What it returns
// holds the token.
func Join(template []byte, s wire.JoinSecret) ([]byte, error) {
	var join joinConfiguration
	if err := yaml.UnmarshalStrict(template, &join); err != nil {
		return nil, fmt.Errorf("%s: %w: install the node again", JoinPath, err)
	}
	if s.Token == "" || s.Endpoint == "" || len(s.CACertHashes) == 0 {
		return nil, errors.New("the boot service's answer lacks the token, the cluster's address or its authority")
	}
	join.Discovery = &discovery{tokenDiscovery{APIServerEndpoint: s.Endpoint, Token: s.Token, CACertHashes: s.CACertHashes}}
	return stream(join)
}
