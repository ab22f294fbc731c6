package keyring

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
)

// relayName is the socket in a replica's folder behind which a node's agent has the
// machine's TPM: the replica's pod has no devices.
const relayName = "tpm.sock"

// relayNetwork keeps a command and its response each in one piece, as the kernel's
// device does.
const relayNetwork = "unixpacket"

const (
	// messageBytes bounds a command: TPM2_PT_MAX_COMMAND_SIZE is 4096 in TPMs there are.
	messageBytes = 4096
	// relayIdle is after what time without a command a connection is closed. What is
	// loaded in the TPM for it goes then.
	relayIdle = time.Minute
)

// Relay lends a machine's TPM to the replica in a folder.
type Relay struct {
	device func() (transport.TPMCloser, error)

	mu       sync.Mutex
	listener *net.UnixListener
	work     sync.WaitGroup
}

// NewRelay makes one for this machine's TPM.
func NewRelay() *Relay {
	return &Relay{device: func() (transport.TPMCloser, error) { return linuxtpm.Open(tpmDevice) }}
}

// Listen has the replica in a folder find the TPM. To call it again costs nothing; it
// begins anew where the folder is another one by now. Without a TPM, or without the
// folder, it does nothing. It lasts until the context ends.
func (r *Relay) Listen(ctx context.Context, folder string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	path := filepath.Join(folder, relayName)
	if _, err := os.Stat(path); err == nil && r.listener != nil || ctx.Err() != nil {
		return nil
	}
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	device, err := r.device()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := device.Close(); err != nil {
		return err
	}
	if r.listener != nil { // that of a folder which was set aside
		_ = r.listener.Close()
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.ListenUnix(relayNetwork, &net.UnixAddr{Name: path, Net: relayNetwork})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false) // by then another one may be there
	r.listener = l
	context.AfterFunc(ctx, func() { _ = l.Close() })
	r.work.Go(func() {
		for {
			c, err := l.AcceptUnix()
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return
			}
			if err != nil { // no file descriptors, for a moment
				time.Sleep(time.Second)
				continue
			}
			r.work.Go(func() { r.serve(ctx, c) })
		}
	})
	return os.Chmod(path, 0o600)
}

// Wait waits until all is over, once the context ended.
func (r *Relay) Wait() { r.work.Wait() }

// serve carries commands to the TPM, opened for this connection alone: the kernel's
// resource manager keeps what it loads apart from others', and drops it with it.
func (r *Relay) serve(ctx context.Context, c *net.UnixConn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	device, err := r.device()
	if err != nil {
		return // the other side says that nothing answered
	}
	defer device.Close()
	message := make([]byte, messageBytes)
	for {
		if c.SetDeadline(time.Now().Add(relayIdle)) != nil {
			return
		}
		n, err := c.Read(message)
		if err != nil || n == 0 {
			return
		}
		answer, err := device.Send(message[:n])
		if err != nil {
			return
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// openTPM opens this machine's TPM, or the one that a node's agent lends to the replica
// in this folder. The error is fs.ErrNotExist where there is neither.
func openTPM(folder string) (transport.TPMCloser, error) {
	t, err := linuxtpm.Open(tpmDevice)
	if !errors.Is(err, fs.ErrNotExist) {
		return t, err
	}
	return dialRelay(filepath.Join(folder, relayName))
}

func dialRelay(path string) (transport.TPMCloser, error) {
	c, err := net.Dial(relayNetwork, path)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(relayIdle)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return transport.FromReadWriteCloser(c), nil
}
