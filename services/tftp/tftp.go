// Package tftp hands out the few files that firmware loads by TFTP (RFC 1350,
// with the options blksize and tsize of RFC 2348 and 2349). It only reads.
//
// The protocol is github.com/pin/tftp's. What it gets wrong is met here:
//
//   - blksize could come out as 1472, which does not fit into a frame with
//     TFTP's own header: the block size is held to 1468;
//   - a lost packet stopped a transfer for 5 s and more: 1 s, without backoff;
//   - transfers were unlimited in number: they are counted, in all and by
//     source, and wait for their turn;
//   - a transfer that nobody acknowledges any more outlived the server: it
//     ends with the context.
//
// It reads the socket itself, for it needs the address that a request was sent
// to: a transfer from another address is dropped by UEFI. So nothing stands in
// front that could rewrite requests. Option names in capitals, which RFC 2347
// allows and no firmware sends, are ignored: such a client gets blocks of 512.
package tftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/pin/tftp/v3"
	"golang.org/x/sys/unix"
)

// Files are what is served.
type Files interface {
	// Open finds a file for the client at an address by its cleaned name,
	// without a leading slash. It fails with fs.ErrNotExist for one that is
	// not there, or not for this client.
	Open(ctx context.Context, from netip.Addr, name string) (io.ReadSeekCloser, error)
}

const (
	blockSize = 1468 // 1500 - 20 (IP) - 8 (UDP) - 4 (TFTP)
	timeout   = time.Second
	retries   = 6
	// transfers run at once, and from one source: firmware loads one file
	// at a time, and may begin again.
	maxTransfers = 256
	maxPerSource = 8
	// patience is how long a request waits for its turn. The client asks again
	// meanwhile, so a longer wait would only serve those who left.
	patience = 3 * time.Second
	// maxWaiting is how many may wait; the others are told to come again.
	maxWaiting = 1024
	// shutdownTime bounds the end: transfers fail at their next block, and one
	// that waits for an acknowledgement after its retries.
	shutdownTime = (retries + 2) * timeout
)

var errBusy = errors.New("too many transfers, try again")

// Serve hands out files at listen (host:port, an address of this machine)
// until ctx ends, then ends the transfers and returns nil. It fails if it
// cannot listen.
func Serve(ctx context.Context, listen string, files Files) error {
	conn, err := open(ctx, listen)
	if err != nil {
		return fmt.Errorf("TFTP: %w", err)
	}
	return serve(ctx, conn, files, slog.Default())
}

// open makes a socket that tells from its first packet on which address it was
// sent to. pin asks for that too, but only after the socket is open.
func open(ctx context.Context, listen string) (net.PacketConn, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		if err := c.Control(func(fd uintptr) {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		}); err != nil {
			return err
		}
		return set
	}}
	return config.ListenPacket(ctx, "udp4", listen)
}

func serve(ctx context.Context, conn net.PacketConn, files Files, log *slog.Logger) error {
	h := &handler{ctx: ctx, files: files, log: log, gate: newGate(maxTransfers, maxPerSource, maxWaiting)}
	server := tftp.NewServer(h.read, nil)
	server.SetBlockSize(blockSize)
	server.SetTimeout(timeout)
	server.SetRetries(retries)
	server.SetBackoff(func(int) time.Duration { return 0 })
	server.SetHook(h)

	served := make(chan error, 1)
	go func() { served <- server.Serve(conn) }()
	select {
	case err := <-served:
		return fmt.Errorf("TFTP on %s: %w", conn.LocalAddr(), err)
	case <-ctx.Done():
	}
	ended := make(chan struct{})
	go func() {
		server.Shutdown()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-time.After(shutdownTime):
		return fmt.Errorf("TFTP on %s: transfers did not end within %s", conn.LocalAddr(), shutdownTime)
	}
}

// handler serves one request a call, many at once.
type handler struct {
	ctx   context.Context
	files Files
	log   *slog.Logger
	gate  *gate
}

// read answers a read request; the text of its error goes to the client.
func (h *handler) read(name string, to io.ReaderFrom) (err error) {
	transfer, ok := to.(tftp.OutgoingTransfer)
	if !ok {
		return errors.New("no transfer")
	}
	peer := transfer.RemoteAddr()
	source, _ := netip.AddrFromSlice(peer.IP)
	ctx, cancel := context.WithTimeout(h.ctx, patience)
	defer cancel()
	leave, err := h.gate.enter(ctx, source.Unmap())
	if err != nil {
		h.log.Warn("TFTP request refused", "peer", peer.String(), "file", clip(name), "error", err)
		return err
	}
	defer leave()

	clean, err := cleanName(name)
	if err != nil {
		return err
	}
	file, err := h.files.Open(ctx, source.Unmap(), clean)
	if errors.Is(err, fs.ErrNotExist) {
		// No fault: iPXE asks everywhere for an autoexec.ipxe, GRUB for lists
		// of modules.
		h.log.Info("TFTP: no such file", "peer", peer.String(), "file", clean, "error", err)
		return errors.New("file not found")
	}
	if err != nil {
		h.log.Error("TFTP: file cannot be read", "file", clean, "error", err)
		return errors.New("the file cannot be read")
	}
	defer func() {
		if cerr := file.Close(); cerr != nil {
			h.log.Error("TFTP: file not closed", "file", clean, "error", cerr)
		}
	}()
	size, err := file.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		h.log.Error("TFTP: file cannot be read", "file", clean, "error", err)
		return errors.New("the file cannot be read")
	}
	start := time.Now()
	n, err := to.ReadFrom(&content{file, h.ctx})
	if err != nil && n == 0 && strings.Contains(err.Error(), "code=8,") {
		// Firmware that only wanted to know the size (option tsize, RFC 2349)
		// ends the negotiation with code 8 (RFC 2347), and asks again. pin has
		// no type for it.
		h.log.Debug("TFTP: nothing was taken", "peer", peer.String(), "file", clean, "error", err)
		return nil
	}
	if err != nil {
		h.log.Warn("TFTP transfer broken off", "peer", peer.String(), "file", clean, "bytes", n, "of", size, "error", err)
		return nil // the client was told
	}
	h.log.Info("TFTP transfer done", "peer", peer.String(), "file", clean, "bytes", n, "took", time.Since(start))
	return nil
}

// OnSuccess is told by read itself.
func (h *handler) OnSuccess(tftp.TransferStats) {}

// OnFailure tells of packets that never became a transfer; the others are
// told by read.
func (h *handler) OnFailure(s tftp.TransferStats, err error) {
	if s.Filename == "" && h.ctx.Err() == nil {
		h.log.Debug("TFTP packet dropped", "error", err)
	}
}

// content is a file that ends with the context.
type content struct {
	io.ReadSeeker
	ctx context.Context
}

func (c *content) Read(b []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, errors.New("the server stops")
	}
	return c.ReadSeeker.Read(b)
}

// cleanName brings a requested name into the form that Files knows: slashes
// either way, several or in front are firmware's habit. Nothing leads upwards.
func cleanName(name string) (string, error) {
	for _, r := range name {
		if r < ' ' || r == 0x7f {
			return "", errors.New("file not found")
		}
	}
	clean := strings.TrimPrefix(path.Clean("/"+strings.ReplaceAll(name, `\`, "/")), "/")
	if clean == "" || len(clean) > 255 {
		return "", errors.New("file not found")
	}
	return clean, nil
}

func clip(s string) string { return s[:min(len(s), 80)] }
