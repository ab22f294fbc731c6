// Package identity is who a replica is, on its own disk: its server ID, its key
// and certificate, and the cluster that it belongs to. It is there before the
// state is opened, and never changes: a replica that lost its disk becomes a new
// one, since it may have forgotten what it promised.
package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/rackseed/rackseed/services/durable"
	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/peerapi"
)

// Files in the folder.
const (
	fileIdentity  = "identity.json"
	fileKey       = "key.pem"
	fileAuthority = "authority.json" // a founder's key of the authority, until the cluster has it
	fileEndpoints = "endpoints.json"
	fileSealed    = "sealed.json"
	fileFresh     = "fresh" // of one that joined, until it is a member
	fileNamed     = "named.json"
)

// Sealed says that it is over for a replica: it handed its part over, and never
// serves or leads again. What it knows may be old.
type Sealed struct {
	Handoff string    `json:"handoff"` // ID of the plan that ended it
	Epoch   uint64    `json:"epoch"`   // as far as it knew
	Index   uint64    `json:"index"`   // newest entry of its log
	At      time.Time `json:"at"`
}

// Named are the replicas that may have got a vote after an entry of the log.
type Named struct {
	Index     uint64            `json:"index"`
	Endpoints map[string]string `json:"endpoints"` // by server ID
}

// stored is identity.json. It is written last: without it there is no identity.
type stored struct {
	Cluster     string `json:"cluster"`
	Generation  uint64 `json:"generation"`
	ID          string `json:"id"`
	Certificate []byte `json:"certificate"` // PEM
	Authority   []byte `json:"authority"`   // its certificate, PEM
	Founder     bool   `json:"founder,omitempty"`
}

// Own is a replica's identity.
type Own struct {
	peer.Identity
	// Founder says that it began the cluster.
	Founder bool
	// AuthorityKey is what the cluster must be given, the secret peerapi.SecretKey;
	// nil where it has it.
	AuthorityKey *keyring.Sealed
	AuthorityCrt []byte // PEM
	// Endpoints are where the replicas were last, this one's too, by server ID.
	// The state has them, but a replica that starts has no state before another
	// one tells it what is committed: were they nowhere else, then after a power
	// cut everywhere nobody would find anybody.
	Endpoints map[string]string
	// Named are those that may have a vote beside this one. It is written before the
	// vote is given, outside of the log: a log whose newest entries are lost knows of
	// no others. Zero: this replica gave no vote away, or is the only member again.
	Named Named
	// Sealed is nil for a replica that is in service.
	Sealed *Sealed
	// Fresh says that it joined, and was no member yet.
	Fresh bool
}

// Load reads the identity in a folder; fs.ErrNotExist: there is none.
func Load(dir string) (Own, error) {
	text, err := os.ReadFile(filepath.Join(dir, fileIdentity))
	if err != nil {
		return Own{}, err
	}
	failed := func(err error) (Own, error) {
		return Own{}, fmt.Errorf("this replica's identity in %s: %w; if the folder is spoilt, remove all of it and let the replica join anew", dir, err)
	}
	var s stored
	if err := json.Unmarshal(text, &s); err != nil {
		return failed(err)
	}
	key, err := os.ReadFile(filepath.Join(dir, fileKey))
	if err != nil {
		return failed(fmt.Errorf("its key is missing: %v", err)) // not fs.ErrNotExist
	}
	i, err := peer.ParseIdentity(key, s.Certificate, s.Authority)
	if err == nil && i.Name != (peer.Name{Cluster: s.Cluster, Generation: s.Generation, ID: s.ID}) {
		err = fmt.Errorf("its certificate is that of %s", i.Name)
	}
	if err != nil {
		return failed(err)
	}
	own := Own{Identity: i, Founder: s.Founder, AuthorityCrt: s.Authority, Endpoints: map[string]string{}}
	for name, to := range map[string]any{fileEndpoints: &own.Endpoints, fileNamed: &own.Named, fileSealed: &own.Sealed} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = json.Unmarshal(text, to)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return failed(fmt.Errorf("%s: %w", name, err))
		}
	}
	switch _, err := os.Stat(filepath.Join(dir, fileFresh)); {
	case err == nil:
		own.Fresh = true
	case !errors.Is(err, fs.ErrNotExist):
		return failed(err)
	}
	text, err = os.ReadFile(filepath.Join(dir, fileAuthority))
	if err == nil {
		err = json.Unmarshal(text, &own.AuthorityKey)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failed(fmt.Errorf("%s: %w", fileAuthority, err))
	}
	return own, nil
}

// Found makes the identity of a cluster's first replica, with the cluster's ID
// and its authority, whose key is sealed under a data key. Killed in between, it is
// made anew: nobody knows it yet.
func Found(dir string, under keyring.Key) (Own, error) {
	return Begin(dir, peer.NewID("c-"), 1, under)
}

// Begin makes the identity of the first replica of a generation of a cluster, with
// its authority.
func Begin(dir, cluster string, generation uint64, under keyring.Key) (Own, error) {
	name := peer.Name{Cluster: cluster, Generation: generation, ID: peer.NewID("replica-")}
	authorityKey, authority, err := peer.NewAuthority(name.Cluster, name.Generation)
	if err != nil {
		return Own{}, err
	}
	a, err := peer.ParseAuthority(authorityKey, authority)
	if err != nil {
		return Own{}, err
	}
	sealed, err := under.Seal(peerapi.SecretKey, authorityKey)
	if err != nil {
		return Own{}, err
	}
	private, key, err := peer.NewKey()
	if err != nil {
		return Own{}, err
	}
	crt, err := a.Issue(name, private.Public())
	if err != nil {
		return Own{}, err
	}
	err = errors.Join(write(dir, fileKey, key), writeJSON(dir, fileAuthority, sealed))
	if err == nil {
		err = keep(dir, stored{Cluster: name.Cluster, Generation: name.Generation, ID: name.ID, Certificate: crt, Authority: authority, Founder: true})
	}
	if err != nil {
		return Own{}, err
	}
	return Load(dir)
}

// Given forgets the authority's key, which the cluster has now: it is on this
// disk no more than any other secret.
func Given(dir string) error {
	return durable.Remove(filepath.Join(dir, fileAuthority))
}

// Begun notes that the replica was a member: from then on its log must be there.
func Begun(dir string) error {
	return durable.Remove(filepath.Join(dir, fileFresh))
}

// Join makes the identity of a replica that an invitation lets in. Its key is on
// the disk before it asks: killed at any moment, it asks again with it, and gets
// the same ID.
func Join(ctx context.Context, dir string, invitation peer.Invitation, q peerapi.JoinRequest) (Own, error) {
	if err := invitation.Check(); err != nil {
		return Own{}, err
	}
	path := filepath.Join(dir, fileKey)
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, key, err = peer.NewKey(); err == nil {
			err = write(dir, fileKey, key)
		}
	}
	if err != nil {
		return Own{}, err
	}
	private, err := peer.ParseKey(key)
	if err != nil {
		return Own{}, fmt.Errorf("%s: %w", path, err)
	}
	r, err := peerapi.Join(ctx, invitation, private, q)
	if err != nil {
		return Own{}, err
	}
	s := stored{
		Cluster: invitation.Cluster, Generation: invitation.Generation, ID: r.ID, Certificate: r.Certificate,
		Authority: invitation.Authority,
	}
	endpoints := map[string]string{}
	for _, x := range r.Replicas {
		endpoints[x.ID] = x.Endpoint
	}
	if _, err := peer.ParseIdentity(key, r.Certificate, invitation.Authority); err != nil {
		return Own{}, fmt.Errorf("what cluster %s issued: %w", invitation.Cluster, err)
	}
	// In this order: with an identity and without that note its log would be missed.
	if err := KeepEndpoints(dir, endpoints); err != nil {
		return Own{}, err
	}
	if err := write(dir, fileFresh, nil); err != nil {
		return Own{}, err
	}
	if err := keep(dir, s); err != nil {
		return Own{}, err
	}
	return Load(dir)
}

// KeepEndpoints keeps where the replicas are now, by server ID.
func KeepEndpoints(dir string, endpoints map[string]string) error {
	return writeJSON(dir, fileEndpoints, endpoints)
}

// Name notes which other replicas may have a vote from now on. Those that were named
// stay so.
func Name(dir string, n Named) error {
	own, err := Load(dir)
	if err != nil {
		return err
	}
	all := maps.Clone(own.Named.Endpoints)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, n.Endpoints)
	return writeJSON(dir, fileNamed, Named{max(n.Index, own.Named.Index), all})
}

// Unname notes that no other replica has a vote any more.
func Unname(dir string) error { return durable.Remove(filepath.Join(dir, fileNamed)) }

// Seal writes that it is over for the replica: on return it is on the disk. What
// was written first stays.
func Seal(dir string, s Sealed) error {
	own, err := Load(dir)
	if err != nil || own.Sealed != nil {
		return err
	}
	return writeJSON(dir, fileSealed, s)
}

func keep(dir string, s stored) error { return writeJSON(dir, fileIdentity, s) }

func writeJSON(dir, name string, what any) error {
	text, err := json.MarshalIndent(what, "", "  ")
	if err != nil {
		return err
	}
	return write(dir, name, text)
}

func write(dir, name string, content []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, name), content, 0o600)
}
