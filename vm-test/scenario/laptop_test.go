//go:build vm || full

package scenario

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/rackseed/rackseed/build/host/notrun"
	"github.com/rackseed/rackseed/images/pid1/link"
	"github.com/rackseed/rackseed/vm-test/rack"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// laptop is an operator's computer on the room's switch: a network namespace
// whose one link is a port of it.
type laptop struct{ do chan func() }

func newLaptop(t *testing.T, r *rack.Rack, address netip.Prefix) laptop {
	t.Helper()
	notrun.WithoutRoot(t, "a network namespace")
	path := filepath.Join(r.Dir, "laptop.sock")
	if _, err := r.Switch.Listen("laptop", path); err != nil {
		t.Fatal(err)
	}
	l := laptop{make(chan func())}
	t.Cleanup(func() { close(l.do) })
	plugged := make(chan error)
	var card *os.File
	go func() {
		runtime.LockOSThread() // for good: the thread ends with its namespace
		var err error
		card, err = plug("rack0", address)
		plugged <- err
		for f := range l.do {
			f()
		}
	}()
	if err := <-plugged; err != nil {
		t.Fatal(err)
	}
	wire, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(card.Close(), wire.Close()); err != nil {
			t.Error(err)
		}
	})
	// Both end when their files are closed.
	go func() {
		frame := make([]byte, 4+2048)
		for {
			n, err := card.Read(frame[4:])
			if err != nil {
				return
			}
			binary.BigEndian.PutUint32(frame, uint32(n))
			if _, err := wire.Write(frame[:4+n]); err != nil {
				return
			}
		}
	}()
	go func() {
		frame := make([]byte, 1<<16)
		for {
			if _, err := io.ReadFull(wire, frame[:4]); err != nil {
				return
			}
			n := min(int(binary.BigEndian.Uint32(frame)), len(frame))
			if _, err := io.ReadFull(wire, frame[:n]); err != nil {
				return
			}
			// A frame that the card does not take is lost, as on any wire.
			_, _ = card.Write(frame[:n])
		}
	}()
	return l
}

// plug moves the thread into a network namespace of its own, with one card.
func plug(name string, address netip.Prefix) (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("a network namespace: %w", err)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return nil, errors.Join(fmt.Errorf("/dev/net/tun: %w", err), unix.Close(fd))
	}
	card := os.NewFile(uintptr(fd), name)
	if err := errors.Join(link.Up(name), link.SetAddress(name, address, time.Hour)); err != nil {
		return nil, errors.Join(err, card.Close())
	}
	return card, nil
}

// newKey is an SSH key that is on no machine yet.
func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// logIn logs in to a machine as root, from the laptop.
func (l laptop) logIn(at string, key ssh.Signer, host ssh.HostKeyCallback) (client *ssh.Client, err error) {
	l.on(func() {
		client, err = ssh.Dial("tcp", net.JoinHostPort(at, "22"), &ssh.ClientConfig{
			User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, Timeout: time.Minute, HostKeyCallback: host,
		})
	})
	return client, err
}

// on does something on the laptop.
func (l laptop) on(f func()) {
	done := make(chan struct{})
	l.do <- func() { defer close(done); f() }
	<-done
}
