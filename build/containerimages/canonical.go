package containerimages

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/rackseed/rackseed/build/pins"
)

// rewrite says what to put for a key's value; bucket is the bucket that holds it.
type rewrite func(bucket *bolt.Bucket, key, value []byte) ([]byte, error)

// canonicalise copies a bolt database of containerd's into a fresh file whose
// bytes depend on the contents alone: buckets and keys in order, each value as
// change says. Each bucket has a transaction of its own, because bolt writes the
// buckets of one transaction in random order.
func canonicalise(to, from string, change rewrite) (err error) {
	src, err := bolt.Open(from, 0o600, &bolt.Options{ReadOnly: true, Timeout: 10 * time.Second})
	if err != nil {
		return fmt.Errorf("reading: %w", err)
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	dst, err := bolt.Open(to, 0o644, &bolt.Options{Timeout: 10 * time.Second, NoSync: true})
	if err != nil {
		return fmt.Errorf("writing: %w", err)
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	return src.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			return copyBucket(dst, [][]byte{name}, b, change)
		})
	})
}

// copyBucket copies a bucket with what is in it; path is its name and those of
// the buckets around it.
func copyBucket(dst *bolt.DB, path [][]byte, from *bolt.Bucket, change rewrite) error {
	var inner [][]byte
	if err := dst.Update(func(tx *bolt.Tx) error {
		to, err := tx.CreateBucketIfNotExists(path[0])
		for _, name := range path[1:] {
			if err != nil {
				break
			}
			to, err = to.CreateBucketIfNotExists(name)
		}
		if err != nil {
			return err
		}
		if err := to.SetSequence(from.Sequence()); err != nil {
			return err
		}
		return from.ForEach(func(k, v []byte) error {
			if v == nil {
				inner = append(inner, k)
				return nil
			}
			v, err := change(from, k, v)
			if err != nil {
				return fmt.Errorf("key %q: %w", k, err)
			}
			return to.Put(k, v)
		})
	}); err != nil {
		return fmt.Errorf("bucket %q: %w", path[len(path)-1], err)
	}
	for _, name := range inner {
		if err := copyBucket(dst, append(slices.Clone(path), name), from.Bucket(name), change); err != nil {
			return err
		}
	}
	return nil
}

// fixedTimes replaces times by the build's. containerd keeps them under two
// keys, in time.Time's binary form, and in the label that keeps something from
// being collected.
func fixedTimes(_ *bolt.Bucket, k, v []byte) ([]byte, error) {
	switch {
	case bytes.Equal(k, []byte("createdat")), bytes.Equal(k, []byte("updatedat")):
		return pins.Epoch().MarshalBinary()
	case bytes.Equal(k, []byte("containerd.io/gc.root")):
		return []byte(pins.Epoch().Format(time.RFC3339)), nil
	}
	return v, nil
}

// fixedUsage is fixedTimes for the snapshots' database, where a snapshot's size
// is also what the build host's file system used for it: it becomes what blocks
// of 4 KiB would. snapshots is the folder that has them by their numbers.
func fixedUsage(snapshots string) rewrite {
	return func(b *bolt.Bucket, k, v []byte) ([]byte, error) {
		id := b.Get([]byte("id"))
		if !bytes.Equal(k, []byte("size")) || id == nil {
			return fixedTimes(b, k, v)
		}
		n, read := binary.Uvarint(id)
		if read <= 0 {
			return nil, fmt.Errorf("snapshot number %x is not a varint", id)
		}
		size, err := usage(filepath.Join(snapshots, strconv.FormatUint(n, 10), "fs"))
		return binary.AppendVarint(nil, size), err
	}
}

// usage is the size of a folder in blocks of 4 KiB.
func usage(dir string) (size int64, err error) {
	const block = 4096
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			size += block
		case d.Type().IsRegular():
			size += (info.Size() + block - 1) / block * block
		}
		return nil
	})
	return size, err
}
