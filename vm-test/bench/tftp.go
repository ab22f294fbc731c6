package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/pin/tftp/v3"

	"github.com/rackseed/rackseed/build/oci"
	"github.com/rackseed/rackseed/build/tools"
)

const (
	tftpFile      = "snponly.efi" // as UEFI machines ask for it
	tftpSize      = 1 << 20       // so MiB/s are files a second, too
	tftpBlockSize = 1468          // what firmware asks for: what fits into a frame
	tftpClients   = 16
	tftpTurns     = 8 // files that each client fetches in one run
	tftpLimit     = 5 * time.Minute
)

// TFTPBoot compares TFTP servers: machines that netboot at once and fetch
// their first program from ours, from tftpd-hpa and from atftpd.
func TFTPBoot(ctx context.Context, dir, rackseed string, peers tools.Root, runs int, log io.Writer) (lines []Line, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("TFTP: %w", err)
		}
	}()
	s, err := newStage(ctx, dir, rackseed, peers)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	b := tftpBoot{stage: s, content: make([]byte, tftpSize), files: filepath.Join(dir, "files")}
	if _, err := mathrand.NewChaCha8([32]byte{}).Read(b.content); err != nil {
		return nil, err
	}
	if err := errors.Join(os.Mkdir(b.files, 0o755), os.WriteFile(filepath.Join(b.files, tftpFile), b.content, 0o644)); err != nil {
		return nil, err
	}
	clients, err := b.clients(ctx, tftpClients)
	if err != nil {
		return nil, err
	}
	if err := b.server.run(ctx, "ip", "addr", "add", otherAddress+networkBits, "dev", "eth0"); err != nil {
		return nil, err
	}
	for _, server := range []struct {
		start   func(context.Context) (*daemon, error)
		address string
	}{{b.ours, serviceAddress}, {b.hpa, peerAddress}, {b.atftpd, otherAddress}} {
		d, fault := server.start(ctx)
		if fault != nil {
			return nil, fault
		}
		defer func() { err = errors.Join(err, d.stop()) }()
		if err := d.await(ctx, func(context.Context) error { return b.fetch(clients[0], server.address, probing) }); err != nil {
			return nil, err
		}
	}
	asked := fmt.Sprintf("What %d clients at once received, over veth, each %d files of 1 MiB one after the other (so it is files a second, too), in blocks of %d, one on its way at a time (no windowsize). The clients (pin/tftp) share these CPUs.", tftpClients, tftpTurns, tftpBlockSize)
	const ours = "Ours: rackseed serve, which looks first who asks and whether that machine boots its own disk."
	hpa := Line{Name: "tftp-boot-hpa", Unit: "MiB/s", Better: "more", Notes: []string{asked, ours, "Peer: tftpd-hpa, a process for each transfer."}}
	atftpd := Line{Name: "tftp-boot-atftpd", Unit: "MiB/s", Better: "more", Notes: []string{asked, ours + " The same runs as in tftp-boot-hpa.", "Peer: atftpd, a thread for each transfer."}}
	err = inTurn(ctx, runs, b.fetches(clients, serviceAddress), []rival{
		{&hpa, b.fetches(clients, peerAddress)}, {&atftpd, b.fetches(clients, otherAddress)},
	}, log)
	return []Line{hpa, atftpd}, err
}

// tftpBoot are the servers of one comparison.
type tftpBoot struct {
	stage
	content []byte // of the file
	files   string // the peers' folder with the file
}

// ours serves the file as the appliance does, from the artifact "ipxe" of an
// OCI layout.
func (b tftpBoot) ours(ctx context.Context) (*daemon, error) {
	dir, err := fresh(b.dir, "rackseed")
	if err != nil {
		return nil, err
	}
	layout := filepath.Join(dir, "layout")
	err = oci.Write(layout, oci.Artifact{Ref: "ipxe", Type: oci.TypeFirmware, Files: map[string]string{tftpFile: filepath.Join(b.files, tftpFile)}})
	if err != nil {
		return nil, err
	}
	return b.serve(ctx, dir, "--images", layout)
}

// hpa answers its first request with silence where it has one address to
// listen on (5.2+20240610): that is the one of await.
func (b tftpBoot) hpa(ctx context.Context) (*daemon, error) {
	dir, err := fresh(b.dir, "tftpd-hpa")
	if err != nil {
		return nil, err
	}
	return b.peer(ctx, dir, "in.tftpd", "--foreground", "--address", peerAddress+":69", "--user", "root", "--secure", b.files)
}

func (b tftpBoot) atftpd(ctx context.Context) (*daemon, error) {
	dir, err := fresh(b.dir, "atftpd")
	if err != nil {
		return nil, err
	}
	return b.peer(ctx, dir, "atftpd", "--daemon", "--no-fork", "--user", "root", "--group", "root", "--bind-address", otherAddress,
		"--port", "69", "--maxthread", strconv.Itoa(4*tftpClients), "--logfile", "-", b.files)
}

// patience is how long a client waits for an answer, and how often it asks
// again.
type patience struct {
	timeout time.Duration
	retries int
}

var (
	probing = patience{100 * time.Millisecond, 3}
	booting = patience{time.Second, 6}
)

// fetches is a run in which each client fetches the file some times; its
// figure is what all received together, in MiB/s.
func (b tftpBoot) fetches(clients []string, server string) measure {
	return func(ctx context.Context) (float64, error) {
		took, err := atOnce(ctx, tftpLimit, clients, func(ctx context.Context, client string) error {
			for range tftpTurns {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if err := b.fetch(client, server, booting); err != nil {
					return err
				}
			}
			return nil
		})
		return float64(len(clients)*tftpTurns*tftpSize) / (1 << 20) / took.Seconds(), err
	}
}

// fetch gets the file from a server for the client at an address, and compares
// it.
func (b tftpBoot) fetch(client, server string, p patience) error {
	c, err := tftp.NewClient(net.JoinHostPort(server, "69"))
	if err != nil {
		return err
	}
	if err := c.SetLocalAddr(client); err != nil {
		return err
	}
	c.SetBlockSize(tftpBlockSize)
	c.SetTimeout(p.timeout)
	c.SetRetries(p.retries)
	c.SetBackoff(func(int) time.Duration { return 0 })
	var transfer io.WriterTo
	err = b.client.do(func() error {
		transfer, err = c.Receive(tftpFile, "octet")
		return err
	})
	if err != nil {
		return fmt.Errorf("TFTP from %s: %w", server, err)
	}
	got := expected{rest: b.content}
	if _, err := transfer.WriteTo(&got); err != nil {
		return fmt.Errorf("TFTP from %s: %w", server, err)
	}
	if len(got.rest) > 0 {
		return fmt.Errorf("TFTP from %s: the last %d bytes of %s are missing", server, len(got.rest), tftpFile)
	}
	return nil
}

// expected takes only what it expects.
type expected struct{ rest []byte }

func (e *expected) Write(p []byte) (int, error) {
	if !bytes.HasPrefix(e.rest, p) {
		return 0, fmt.Errorf("other bytes than expected, %d before the end", len(e.rest))
	}
	e.rest = e.rest[len(p):]
	return len(p), nil
}
