package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/rackseed/rackseed/build/tools"
	"github.com/rackseed/rackseed/services/blob"
	"github.com/rackseed/rackseed/services/blobsync"
	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/peerapi"
)

// ReplicaCopy compares how a blob comes from one replica to another, and how curl
// and dd copy it: over loopback, onto a disk in dir.
func ReplicaCopy(ctx context.Context, dir, rackseed string, peers tools.Root, runs int, log io.Writer) (line Line, err error) {
	line = Line{
		Name: "replica-copy", Unit: "MiB/s", Better: "more",
		Notes: []string{
			fmt.Sprintf("%d MiB that cannot be compressed, over loopback into a file, until fsync returned.", imageMiB),
			"Ours: from replica to replica, over TLS with certificates on both sides, SHA-256 compared while it is written.",
			"Peer: curl -s URL | dd of=FILE bs=4M conv=fsync,notrunc, from rackseed serve, without TLS, which compares nothing.",
		},
	}
	failed := func(err error) (Line, error) { return line, fmt.Errorf("%s: %w", line.Name, err) }
	if err := onDisk(dir); err != nil {
		return failed(err)
	}
	t := &transfer{peers: peers, target: filepath.Join(dir, "disk")}
	stop, err := t.serve(ctx, dir, rackseed)
	if err != nil {
		return failed(err)
	}
	defer func() { err = errors.Join(err, stop()) }()
	from, end, err := replicaWith(ctx, filepath.Join(dir, "data", "blobs"))
	if err != nil {
		return failed(err)
	}
	defer func() { err = errors.Join(err, end()) }()
	ours := func(ctx context.Context) (rate float64, err error) {
		ctx, cancel := context.WithTimeout(ctx, transferLimit)
		defer cancel()
		to := filepath.Join(dir, "copy")
		defer func() { err = errors.Join(err, os.RemoveAll(to)) }()
		blobs, err := blob.Open(to)
		if err != nil {
			return 0, err
		}
		loop := &blobsync.Loop{Blobs: blobs, Source: from, Logger: slog.New(slog.DiscardHandler)}
		begin := time.Now()
		if err := loop.Fetch(ctx, blob.Digest(t.image.Digest)); err != nil {
			return 0, err
		}
		return float64(t.image.Size) / (1 << 20) / time.Since(begin).Seconds(), nil
	}
	return line, line.inTurn(ctx, runs, ours, t.timed(t.curlAndDD), log)
}

// one is the only other replica.
type one struct{ peerapi.Client }

func (one) Peers() []string { return []string{"replica-a"} }

// replicaWith serves blobs as a replica does, and is how another one asks it.
func replicaWith(ctx context.Context, folder string) (from one, end func() error, err error) {
	blobs, err := blob.Open(folder)
	if err != nil {
		return from, nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return from, nil, err
	}
	key, crt, err := peer.NewAuthority("c-bench", 1)
	if err != nil {
		return from, nil, errors.Join(err, l.Close())
	}
	network := func(id string, server *peerapi.Server) (*peer.Network, error) {
		authority, err := peer.ParseAuthority(key, crt)
		if err != nil {
			return nil, err
		}
		private, its, err := peer.NewKey()
		if err != nil {
			return nil, err
		}
		issued, err := authority.Issue(peer.Name{Cluster: "c-bench", Generation: 1, ID: id}, private.Public())
		if err != nil {
			return nil, err
		}
		identity, err := peer.ParseIdentity(its, issued, crt)
		if err != nil {
			return nil, err
		}
		return peer.New(peer.Config{
			Identity: identity, Member: func(string) bool { return true },
			Endpoint: func(string) (string, error) { return l.Addr().String(), nil },
			Members:  server.Members(), Joins: server.Joins(), Logger: slog.New(slog.DiscardHandler),
		}), nil
	}
	a, err := network("replica-a", &peerapi.Server{Blobs: blobs})
	if err != nil {
		return from, nil, errors.Join(err, l.Close())
	}
	b, err := network("replica-b", &peerapi.Server{})
	if err != nil {
		return from, nil, errors.Join(err, l.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- a.Serve(ctx, l) }()
	return one{peerapi.Client{HTTP: b.Client()}}, func() error {
		stop()
		err := <-served
		b.Close()
		a.Close()
		return err
	}, nil
}
