package state

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
)

// Secret is a secret of the cluster, or a node's seed (NodeSecret); false: it is
// not there, or OpenSecret says why it cannot be opened.
func (v View) Secret(name string) ([]byte, bool) {
	value, err := v.OpenSecret(name)
	return value, err == nil
}

// OpenSecret opens a secret.
func (v View) OpenSecret(name string) ([]byte, error) {
	r := first[secretRow](v.t, tableSecrets, byID, key(name))
	if r == nil {
		return nil, fmt.Errorf("the state has no secret %s", name)
	}
	return v.keys.Open(name, r.Sealed)
}

// SealSecret seals a secret under the current data key, for a command.
func (v View) SealSecret(name string, value []byte) (keyring.Sealed, error) {
	return v.keys.Seal(v.Keyring().Current, name, value)
}

// Keyring is which data keys secrets are sealed under.
func (v View) Keyring() Keyring {
	if k := v.t.keyring(); k != nil {
		return *k
	}
	return Keyring{}
}

// CopyKeys is the command that makes a recovery key the cluster's: the data keys,
// encrypted to its public part.
func (v View) CopyKeys(recipient string) (RecoveryPut, error) {
	c := RecoveryPut{Recipient: recipient, Keys: v.Keyring().Keys()}
	keys := v.keys.Keys(c.Keys...)
	if len(keys) == 0 || len(keys) != len(c.Keys) {
		return c, fmt.Errorf("this replica lacks data keys: it gets them from the others once it can reach them")
	}
	var err error
	c.Copy, err = keyring.Copy(recipient, keys...)
	return c, err
}

// Reseal seals secrets that are under another data key than the current one anew,
// at most limit of them; none: all are under the current one.
func (v View) Reseal(limit int) (c SecretReseal, err error) {
	current := v.Keyring().Current
	each(v.t, tableSecrets, byID, nil, func(r *secretRow) bool {
		if r.Sealed.Key == current {
			return true
		}
		var value []byte
		if value, err = v.keys.Open(r.Name, r.Sealed); err != nil {
			return false
		}
		n := Resealed{Name: r.Name, Was: hashOf(r.Sealed)}
		if n.Sealed, err = v.keys.Seal(current, r.Name, value); err != nil {
			return false
		}
		c.Secrets = append(c.Secrets, n)
		return len(c.Secrets) < limit
	})
	return c, err
}

func hashOf(s keyring.Sealed) []byte {
	h := sha256.Sum256(s.Value)
	return h[:]
}

func (t tables) keyring() *Keyring { return first[Keyring](t, tableKeyring, byID, []byte{0}) }

// putSecret keeps a secret. It must be sealed under the current data key: the one
// before it is to be forgotten once nothing is sealed under it.
func (c *change) putSecret(name string, s keyring.Sealed) error {
	current := ""
	if k := c.keyring(); k != nil {
		current = k.Current
	}
	if s.Key != current {
		return refuse("secret %.80s is sealed under data key %.40q, and %.40q is the current one: it was changed meanwhile; do the same again", name, s.Key, current)
	}
	c.put(tableSecrets, &secretRow{Name: name, Sealed: s})
	return nil
}

// editKeyring is a copy of the keyring's row.
func (c *change) editKeyring() (*Keyring, error) {
	old := c.keyring()
	if old == nil {
		return nil, refuse("there is no cluster yet, and so no data key")
	}
	k := *old
	return &k, nil
}

const maxCopy = 16 << 10 // bytes of the data keys' copy

func (c *change) keyNext(x KeyNext) error {
	k, err := c.editKeyring()
	if err != nil {
		return err
	}
	if err := word("data key", x.Key); err != nil {
		return err
	}
	switch {
	case k.Old != "":
		return refuse("data key %.40s: secrets are still being sealed anew under %s", x.Key, k.Current)
	case x.Key == k.Current || x.Key == k.Next:
		return refuse("data key %.40s was there before: make a new one", x.Key)
	case x.Recipient != k.Recipient:
		return refuse("data key %.40s: the recovery key was changed meanwhile: copy the keys for the new one", x.Key)
	case len(x.Copy) > maxCopy || (x.Recipient == "") != (len(x.Copy) == 0):
		return refuse("data key %.40s: its copy has %d bytes; 1 to %d are expected, none without a recovery key", x.Key, len(x.Copy), maxCopy)
	}
	k.Next, k.For, k.Copy = x.Key, x.For, x.Copy
	c.put(tableKeyring, k)
	c.event("", "key.made", machine.Info, "A new data key for the cluster's secrets was made: the replicas fetch it", "key", x.Key)
	return nil
}

func (c *change) keyTurn(x KeyTurn) error {
	k, err := c.editKeyring()
	if err != nil {
		return err
	}
	if x.Key == "" || x.Key != k.Next {
		return refuse("data key %.40q cannot become the current one: %.40q is next", x.Key, k.Next)
	}
	k.Old, k.Current, k.Next = k.Current, k.Next, ""
	c.put(tableKeyring, k)
	return nil
}

func (c *change) secretReseal(x SecretReseal) error {
	k, err := c.editKeyring()
	if err != nil {
		return err
	}
	anew := map[string]bool{}
	for _, s := range x.Secrets {
		r := first[secretRow](c.tables, tableSecrets, byID, key(s.Name))
		if r == nil || !bytes.Equal(hashOf(r.Sealed), s.Was) {
			continue
		}
		if err := c.putSecret(s.Name, s.Sealed); err != nil {
			return err
		}
		anew[s.Name] = true
	}
	left := false
	each(c.tables, tableSecrets, byID, nil, func(r *secretRow) bool {
		left = r.Sealed.Key != k.Current && !anew[r.Name]
		return !left
	})
	if !left && k.Old != "" {
		c.event("", "key.turned", machine.Info, "All secrets are sealed under the new data key; the one before is forgotten", "key", k.Current)
		k.Old = ""
		c.put(tableKeyring, k)
	}
	return nil
}

func (c *change) recoveryPut(x RecoveryPut) error {
	k, err := c.editKeyring()
	if err != nil {
		return err
	}
	if err := word("recovery key's public part", x.Recipient); err != nil {
		return err
	}
	if len(x.Copy) == 0 || len(x.Copy) > maxCopy {
		return refuse("recovery key: the data keys' copy has %d bytes; 1 to %d are expected", len(x.Copy), maxCopy)
	}
	has := map[string]bool{}
	for _, id := range x.Keys {
		has[id] = true
	}
	for _, id := range k.Keys() {
		if !has[id] {
			return refuse("recovery key: the copy lacks data key %s, which was made meanwhile; do the same again", id)
		}
	}
	verb := "made"
	if k.Recipient != "" {
		verb = "replaced"
	}
	k.Recipient, k.Copy = x.Recipient, x.Copy
	c.put(tableKeyring, k)
	c.event("", "recovery.put", machine.Warning, "The recovery key was "+verb+" by "+asker(c.by), "by", c.by)
	return nil
}
