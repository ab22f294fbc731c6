// Package ignition assembles each machine's Ignition config from profile,
// machine and site, and checks it with the Ignition library before any machine
// sees it.
//
// It is pure: the same input gives the same bytes. The config is spec 3.6.0
// (https://coreos.github.io/ignition/configuration-v3_6/), which the installer
// applies to the new root with stages fetch-offline and files.
package ignition

import (
	"io/fs"

	"github.com/rackseed/rackseed/services/machine"
)

// Input is all that a machine's Ignition is made from.
type Input struct {
	Site    machine.Site
	Machine machine.Machine
	Profile machine.Profile
	// NodeSeed is the ed25519 seed (32 bytes) of the node's key.
	NodeSeed []byte
	// ServiceURL is the machines' HTTP server, as http://10.77.0.1.
	ServiceURL string
	// Secrets finds a secret of the cluster by name, as "pki/ca.crt".
	Secrets func(name string) ([]byte, bool)
}

// File is one file of the node. It replaces what the image has at Path.
type File struct {
	Path     string
	Mode     fs.FileMode // permission bits; 0600 for what is secret
	Contents []byte
}

// Contributor adds files to a machine's Ignition; package kube's does.
type Contributor interface {
	Contribute(in Input) ([]File, error)
}
