package bench

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rackseed/rackseed/build/tools"
	"github.com/rackseed/rackseed/services/wire"
)

const (
	httpClients = 16
	// httpTurns is how often a client alone fetches in one run, else a run
	// would be too short.
	httpTurns = 4
	httpLimit = 5 * time.Minute
)

// HTTPBlob compares HTTP servers with the same file of a node image's size,
// which one client fetches, and then sixteen at once: ours, at the address that
// installers fetch from, and nginx with sendfile. Nothing is written; the file
// is in the page cache of both.
func HTTPBlob(ctx context.Context, dir, rackseed string, peers tools.Root, runs int, log io.Writer) (lines []Line, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("HTTP: %w", err)
		}
	}()
	s, err := newStage(ctx, dir, rackseed, peers)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	h := httpBlob{stage: s}
	clients, err := h.clients(ctx, httpClients)
	if err != nil {
		return nil, err
	}
	if h.image, err = storeImage(ctx, filepath.Join(dir, "data")); err != nil {
		return nil, err
	}
	servers := []struct {
		start func(context.Context) (*daemon, error)
		url   string
	}{
		{h.ours, "http://" + serviceAddress + wire.PathBlob + h.image.Digest + "/" + h.image.Name},
		{h.nginx, "http://" + peerAddress + "/" + h.image.Name},
	}
	for _, server := range servers {
		d, fault := server.start(ctx)
		if fault != nil {
			return nil, fault
		}
		defer func() { err = errors.Join(err, d.stop()) }()
		if err := d.await(ctx, func(ctx context.Context) error { return h.check(ctx, clients[0], server.url) }); err != nil {
			return nil, err
		}
	}
	for _, c := range []struct {
		who     string
		clients []string
		turns   int
	}{{"one client", clients[:1], httpTurns}, {fmt.Sprintf("%d clients at once", httpClients), clients, 1}} {
		l := Line{Name: fmt.Sprintf("http-blob-%d", len(c.clients)), Unit: "MiB/s", Better: "more", Notes: []string{
			fmt.Sprintf("What %s received, over veth, of a file of %d MiB in the page cache; nothing is written. The client, a Go program, shares these CPUs.", c.who, imageMiB),
			"Ours: rackseed serve, where installers fetch their image.",
			"Peer: nginx with sendfile on, a worker for each CPU and reuseport, the same file.",
		}}
		err := l.inTurn(ctx, runs, h.fetches(c.clients, c.turns, servers[0].url), h.fetches(c.clients, c.turns, servers[1].url), log)
		if err != nil {
			return nil, err
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// httpBlob are the servers of one comparison.
type httpBlob struct {
	stage
	image wire.File
}

func (h httpBlob) ours(ctx context.Context) (*daemon, error) { return h.serve(ctx, h.dir) }

// nginxConfig is nginx's for the files in dir: Debian's settings for static
// files, without a line for each request, and reuseport, without which it was
// slower with many clients.
func nginxConfig(dir string) string {
	var temporary strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temporary, "    %s_temp_path %q;\n", kind, filepath.Join(dir, kind))
	}
	return fmt.Sprintf(`daemon off;
user root;
worker_processes auto;
pid %q;
error_log stderr warn;
events { worker_connections 1024; }
http {
    access_log off;
    sendfile on;
    tcp_nopush on;
    default_type application/octet-stream;
%s    server {
        listen %s:80 reuseport;
        root %q;
    }
}
`, filepath.Join(dir, "pid"), temporary.String(), peerAddress, filepath.Join(dir, "files"))
}

// nginx starts nginx with a link to the stored image, so that both have the
// same file.
func (h httpBlob) nginx(ctx context.Context) (*daemon, error) {
	dir, err := fresh(h.dir, "nginx")
	if err != nil {
		return nil, err
	}
	config, files := filepath.Join(dir, "nginx.conf"), filepath.Join(dir, "files")
	_, hex, _ := strings.Cut(h.image.Digest, ":")
	stored := filepath.Join(h.dir, "data", "blobs", "blobs", "sha256", hex)
	if err := errors.Join(os.Mkdir(files, 0o755), os.Link(stored, filepath.Join(files, h.image.Name)), os.WriteFile(config, []byte(nginxConfig(dir)), 0o644)); err != nil {
		return nil, err
	}
	return h.peer(ctx, dir, "nginx", "-p", dir, "-e", "stderr", "-c", config)
}

// check fetches the image and compares it, which also brings it into the page
// cache.
func (h httpBlob) check(ctx context.Context, client, url string) error {
	browser := h.browser(client)
	defer browser.CloseIdleConnections()
	sum := sha256.New()
	if err := h.fetch(ctx, browser, url, sum); err != nil {
		return err
	}
	if got := fmt.Sprintf("sha256:%x", sum.Sum(nil)); got != h.image.Digest {
		return fmt.Errorf("%s has %s, not %s", url, got, h.image.Digest)
	}
	return nil
}

// fetches is a run in which each client fetches the image some times; its
// figure is what all received together, in MiB/s.
func (h httpBlob) fetches(clients []string, turns int, url string) measure {
	return func(ctx context.Context) (float64, error) {
		took, err := atOnce(ctx, httpLimit, clients, func(ctx context.Context, client string) error {
			browser := h.browser(client)
			defer browser.CloseIdleConnections()
			for range turns {
				if err := h.fetch(ctx, browser, url, io.Discard); err != nil {
					return err
				}
			}
			return nil
		})
		return float64(len(clients)*turns) * float64(h.image.Size) / (1 << 20) / took.Seconds(), err
	}
}

// browser is an HTTP client at an address of the cable's other end.
func (h httpBlob) browser(address string) *http.Client {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	return &http.Client{Transport: &http.Transport{
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, to string) (conn net.Conn, err error) {
			err = h.client.do(func() error {
				conn, err = dialer.DialContext(ctx, "tcp4", to)
				return err
			})
			return conn, err
		},
	}}
}

// readSize is large, so that the client costs little.
const readSize = 256 << 10

func (h httpBlob) fetch(ctx context.Context, browser *http.Client, url string, to io.Writer) (err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := browser.Do(r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	// Discard would read in small pieces if it saw the reader.
	n, err := io.CopyBuffer(struct{ io.Writer }{to}, resp.Body, make([]byte, readSize))
	if err == nil && n != h.image.Size {
		err = fmt.Errorf("%s: %d bytes, not %d", url, n, h.image.Size)
	}
	return err
}
