// Package keyring seals the cluster's secrets. Each is sealed under a data key of
// the cluster before it is proposed, so that the log, snapshots and backups hold
// ciphertext only. Every replica keeps the data keys in a ring on its own disk,
// wrapped by what protects that disk's secrets; a copy of them for the recovery key
// is in the state.
package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Sealed is a secret under a data key.
type Sealed struct {
	Key   string `json:"key"`   // ID of the data key
	Value []byte `json:"value"` // nonce (12 bytes), ciphertext and tag (16 bytes)
}

// Key is a data key.
type Key struct {
	ID    string `json:"id"`
	Bytes []byte `json:"bytes"` // keySize of them
}

const keySize = 32 // bytes, of a data key and of the keys derived from it: AES-256

// NewKey makes a data key that was never there.
func NewKey() Key {
	var b [4 + keySize]byte
	rand.Read(b[:]) // never fails since Go 1.24
	return Key{"key-" + hex.EncodeToString(b[:4]), b[4:]}
}

// aead is what one secret is sealed with: a key of its own for each name, by
// HKDF-SHA256 (RFC 5869), so that one may be sealed 2^32 times with nonces that are
// drawn (NIST SP 800-38D, section 8.3).
func (k Key) aead(name string) (cipher.AEAD, error) {
	if len(k.Bytes) != keySize {
		return nil, fmt.Errorf("data key %s has %d bytes, %d are expected", k.ID, len(k.Bytes), keySize)
	}
	b, err := hkdf.Key(sha256.New, k.Bytes, nil, "rackseed secret "+name, keySize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(b)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Seal seals a secret under its name: it can be opened under no other one.
func (k Key) Seal(name string, secret []byte) (Sealed, error) {
	a, err := k.aead(name)
	if err != nil {
		return Sealed{}, err
	}
	return Sealed{k.ID, a.Seal(nil, nil, secret, []byte(name))}, nil
}

// Open opens what Seal sealed.
func (k Key) Open(name string, s Sealed) ([]byte, error) {
	a, err := k.aead(name)
	if err != nil {
		return nil, err
	}
	secret, err := a.Open(nil, nil, s.Value, []byte(name))
	if err != nil {
		return nil, fmt.Errorf("secret %s: it is not what was sealed under data key %s: the state or the key was changed", name, k.ID)
	}
	return secret, nil
}
