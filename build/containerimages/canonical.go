package containerimages

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/rackseed/rackseed/build/pins"
)

// canonicalise copies a bolt database of containerd's into a fresh file whose
// bytes depend on the contents alone: keys in order, one transaction, and every
// time in it the build's. Nothing else is changed.
func canonicalise(to, from string) (err error) {
	src, err := bolt.Open(from, 0o600, &bolt.Options{ReadOnly: true, Timeout: 10 * time.Second})
	if err != nil {
		return fmt.Errorf("reading: %w", err)
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	dst, err := bolt.Open(to, 0o644, &bolt.Options{Timeout: 10 * time.Second})
	if err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	return src.View(func(r *bolt.Tx) error {
		return dst.Update(func(w *bolt.Tx) error {
			return r.ForEach(func(name []byte, b *bolt.Bucket) error {
				to, err := w.CreateBucket(name)
				if err != nil {
					return err
				}
				return copyBucket(to, b)
			})
		})
	})
}

func copyBucket(to, from *bolt.Bucket) error {
	if err := to.SetSequence(from.Sequence()); err != nil {
		return err
	}
	return from.ForEach(func(k, v []byte) error {
		if v != nil {
			v, err := canonicalValue(k, v)
			if err != nil {
				return fmt.Errorf("key %q: %w", k, err)
			}
			return to.Put(k, v)
		}
		sub, err := to.CreateBucket(k)
		if err != nil {
			return err
		}
		return copyBucket(sub, from.Bucket(k))
	})
}

// canonicalValue replaces times. containerd keeps them under two keys, in
// time.Time's binary form, and in the label that keeps a root from collection.
func canonicalValue(k, v []byte) ([]byte, error) {
	switch {
	case bytes.Equal(k, []byte("createdat")), bytes.Equal(k, []byte("updatedat")):
		return pins.Epoch().MarshalBinary()
	case bytes.Equal(k, []byte("containerd.io/gc.root")):
		return []byte(pins.Epoch().Format(time.RFC3339)), nil
	}
	return v, nil
}
