package tftp

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pin/tftp/v3"
)

// memory is a folder of files in memory.
type memory map[string][]byte

func (m memory) Open(_ context.Context, from netip.Addr, name string) (io.ReadSeekCloser, error) {
	b, ok := m[name]
	if !ok || !from.IsLoopback() && !from.IsPrivate() {
		return nil, fs.ErrNotExist
	}
	return opened{bytes.NewReader(b)}, nil
}

type opened struct{ *bytes.Reader }

func (opened) Close() error { return nil }

// random is content in which a misplaced block shows.
func random(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// startServer serves files on a free port of loopback until the test ends.
func startServer(t testing.TB, files Files) string {
	t.Helper()
	conn, err := open(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, conn, files, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return conn.LocalAddr().String()
}

func fetch(server, name string, options func(*tftp.Client)) ([]byte, error) {
	c, err := tftp.NewClient(server)
	if err != nil {
		return nil, err
	}
	c.SetTimeout(5 * time.Second)
	if options != nil {
		options(c)
	}
	w, err := c.Receive(name, "octet")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err = w.WriteTo(&b)
	return b.Bytes(), err
}

func TestTransfer(t *testing.T) {
	files := memory{"empty": {}, "one": {7}, "block": random(1468), "two": random(2 * 512), "snponly.efi": random(300_001), "dir/x": []byte("x")}
	server := startServer(t, files)
	big := func(c *tftp.Client) { c.SetBlockSize(8192); c.RequestTSize(true) }
	for _, ask := range []string{"empty", "one", "block", "two", "snponly.efi", "/snponly.efi", `\snponly.efi`, "//dir//x", `dir\x`, "../dir/x"} {
		want := files[strings.TrimLeft(strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(ask, `\`, "/"), "//", "/"), "../", ""), "/")]
		for _, options := range []func(*tftp.Client){nil, big} {
			got, err := fetch(server, ask, options)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes, error %v; want %d bytes", ask, len(got), err, len(want))
			}
		}
	}
}

func TestManyClients(t *testing.T) {
	files := memory{"f": random(100_000)}
	server := startServer(t, files)
	var all sync.WaitGroup
	for range maxPerSource {
		all.Go(func() {
			if got, err := fetch(server, "f", nil); err != nil || !bytes.Equal(got, files["f"]) {
				t.Errorf("%d bytes, error %v", len(got), err)
			}
		})
	}
	all.Wait()
}

// exchange sends a packet from a socket of its own and returns the answer.
func exchange(t testing.TB, server string, packet []byte) []byte {
	t.Helper()
	addr, err := net.ResolveUDPAddr("udp4", server)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.WriteTo(packet, addr); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 65536)
	n, from, err := c.ReadFrom(b)
	if err != nil {
		t.Fatalf("no answer to %q: %v", packet, err)
	}
	// End the transfer, so that the server need not wait for us: acknowledge a
	// block that is the last one, else say that it is enough.
	end := []byte{0, 5, 0, 0, 0}
	if n > 4 && n < 516 && b[1] == 3 {
		end = []byte{0, 4, b[2], b[3]}
	}
	if _, err := c.WriteTo(end, from); err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

func TestAnswers(t *testing.T) {
	server := startServer(t, memory{"f": random(5000)})
	tests := []struct {
		name, packet string
		op           uint16
		contains     string
	}{
		{"block size is held to what fits a frame", "\x00\x01f\x00octet\x00blksize\x0065464\x00", 6, "blksize\x001468\x00"},
		{"a small block size is granted", "\x00\x01f\x00octet\x00blksize\x001000\x00", 6, "blksize\x001000\x00"},
		{"size is told", "\x00\x01f\x00octet\x00tsize\x000\x00", 6, "tsize\x005000\x00"},
		{"an unknown option is not acknowledged", "\x00\x01f\x00octet\x00colour\x00blue\x00", 3, ""},
		{"capital option names: plain blocks", "\x00\x01f\x00octet\x00BLKSIZE\x001400\x00", 3, ""},
		{"no such file", "\x00\x01nothing\x00octet\x00", 5, "\x00\x01file not found\x00"},
		{"a name that leads upwards", "\x00\x01../../etc/passwd\x00octet\x00", 5, "file not found"},
		{"a name with a line break", "\x00\x01a\nb\x00octet\x00", 5, "file not found"},
		{"no name", "\x00\x01\x00octet\x00", 5, "file not found"},
		{"writing", "\x00\x02f\x00octet\x00", 5, "does not support write"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := exchange(t, server, []byte(test.packet))
			if op := binary.BigEndian.Uint16(got); op != test.op || !strings.Contains(string(got), test.contains) {
				t.Errorf("got opcode %d, %.80q; want %d with %q", op, got, test.op, test.contains)
			}
		})
	}
}

// FuzzRequest: nothing that arrives keeps the server from serving the next.
func FuzzRequest(f *testing.F) {
	content := []byte("served")
	// A name that is not found by chance: an unacknowledged transfer of it
	// would take a slot for seconds.
	const name = "b6d1f5c02a9e.bin"
	server := startServer(f, memory{name: content})
	for _, seed := range []string{"", "\x00", "\x00\x01", "\x00\x01f\x00octet", "\x00\x09xxxx", "\x00\x04\x00\x01", "\x00\x01f\x00netascii\x00blksize\x00-1\x00tsize\x00x\x00"} {
		f.Add([]byte(seed))
	}
	c, err := net.Dial("udp4", server)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := c.Close(); err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1472 {
			return // more than a frame holds
		}
		if _, err := c.Write(b); err != nil {
			return // the ICMP error of an answer that c did not wait for
		}
		if got := exchange(t, server, []byte("\x00\x01"+name+"\x00octet\x00")); !bytes.HasSuffix(got, content) {
			t.Fatalf("after %q: got %q", b, got)
		}
	})
}

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(2, 2, 1)
		a, b, c := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
		enter := func(source netip.Addr) (func(), error) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			return g.enter(ctx, source)
		}
		leave1, err1 := enter(a)
		leave2, err2 := enter(a)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if _, err := enter(a); err != errBusy {
			t.Errorf("a third from one source: %v", err)
		}
		if _, err := enter(b); err != errBusy { // waits in virtual time
			t.Errorf("a third in all, nobody leaving: %v", err)
		}
		entered := make(chan func())
		go func() {
			leave, err := enter(b)
			if err != nil {
				t.Error(err)
			}
			entered <- leave
		}()
		synctest.Wait()
		if _, err := enter(c); err != errBusy {
			t.Errorf("one too many waiting: %v", err)
		}
		leave1()
		leave3 := <-entered
		leave2()
		leave3()
		if len(g.inside) != 0 || len(g.slots) != 0 || g.waiting != 0 {
			t.Errorf("left behind: %+v", g)
		}
	})
}
