package bench

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/rackseed/rackseed/build/tools"
	"github.com/rackseed/rackseed/images/installer/client"
	"github.com/rackseed/rackseed/images/installer/install"
	"github.com/rackseed/rackseed/services/blob"
	"github.com/rackseed/rackseed/services/wire"
)

const (
	imageMiB = 300 // a node image's root is about so large
	slotMiB  = 1024
	// transferLimit bounds one run.
	transferLimit = 5 * time.Minute
)

// ImageToDisk compares how a node image comes onto a disk: by the installer's
// own code, and by curl and dd. Both fetch from rackseed serve over loopback
// and write into a file in dir, which must be on a disk.
func ImageToDisk(ctx context.Context, dir, rackseed string, peers tools.Root, runs int, log io.Writer) (line Line, err error) {
	line = Line{
		Name: "image-to-disk", Unit: "MiB/s", Better: "more",
		Notes: []string{
			fmt.Sprintf("%d MiB that cannot be compressed, from rackseed serve over loopback into a file, until fsync returned.", imageMiB),
			"Ours: the installer's code, which also compares the SHA-256 while it writes.",
			"Peer: curl -s URL | dd of=FILE bs=4M conv=fsync,notrunc, which compares nothing.",
		},
	}
	if err := onDisk(dir); err != nil {
		return line, fmt.Errorf("%s: %w", line.Name, err)
	}
	t := &transfer{peers: peers, target: filepath.Join(dir, "disk")}
	stop, err := t.serve(ctx, dir, rackseed)
	if err != nil {
		return line, fmt.Errorf("%s: %w", line.Name, err)
	}
	defer func() { err = errors.Join(err, stop()) }()
	return line, line.inTurn(ctx, runs, t.timed(t.installer), t.timed(t.curlAndDD), log)
}

// transfer is the stage of one comparison.
type transfer struct {
	peers  tools.Root
	base   string    // the server's URL
	image  wire.File // what is fetched
	target string    // what is written
}

// storeImage puts what stands for a node image's root into a replica's folder.
func storeImage(ctx context.Context, data string) (wire.File, error) {
	store, err := blob.Open(filepath.Join(data, "blobs"))
	if err != nil {
		return wire.File{}, err
	}
	random := mathrand.NewChaCha8([32]byte{}) // the same bytes each time
	digest, size, err := store.Put(ctx, io.LimitReader(random, imageMiB<<20), "")
	return wire.File{Name: "root.erofs", Digest: string(digest), Size: size}, err
}

// serve stores an image and starts a boot service that has it.
func (t *transfer) serve(ctx context.Context, dir, rackseed string) (stop func() error, err error) {
	data := filepath.Join(dir, "data")
	if t.image, err = storeImage(ctx, data); err != nil {
		return nil, err
	}
	listen, err := freeAddress()
	if err != nil {
		return nil, err
	}
	t.base = "http://" + listen
	serve := exec.CommandContext(ctx, rackseed, "serve", "--dev", "--data", data, "--http", listen, "--https", "127.0.0.1:0")
	s, err := start("rackseed", serve, filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx, t.answers); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s.stop, nil
}

// answers says whether the server has the image.
func (t *transfer) answers(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, t.url(), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || resp.ContentLength != t.image.Size {
		return fmt.Errorf("%s: %s, %d bytes", t.url(), resp.Status, resp.ContentLength)
	}
	return nil
}

func (t *transfer) url() string { return t.base + wire.PathBlob + t.image.Digest + "/" + t.image.Name }

// timed runs write on an empty disk, measures it in MiB/s, and looks
// afterwards whether the disk has the image.
func (t *transfer) timed(write func(context.Context) error) measure {
	return func(ctx context.Context) (rate float64, err error) {
		ctx, cancel := context.WithTimeoutCause(ctx, transferLimit, fmt.Errorf("not within %v", transferLimit))
		defer cancel()
		f, err := os.Create(t.target)
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, f.Close(), os.Remove(t.target)) }()
		if err := f.Truncate(slotMiB << 20); err != nil {
			return 0, err
		}
		begin := time.Now()
		if err := write(ctx); err != nil {
			return 0, err
		}
		took := time.Since(begin)
		sum := sha256.New()
		if _, err := io.Copy(sum, io.LimitReader(f, t.image.Size)); err != nil {
			return 0, err
		}
		if got := fmt.Sprintf("sha256:%x", sum.Sum(nil)); got != t.image.Digest {
			return 0, fmt.Errorf("the disk holds %s, not the image %s", got, t.image.Digest)
		}
		return float64(t.image.Size) / (1 << 20) / took.Seconds(), nil
	}
}

// installer opens the disk and writes as the installer does.
func (t *transfer) installer(ctx context.Context) (err error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(t.target, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	service := client.New(t.base, key, slog.Default())
	return install.Stream(ctx, service, t.image, f, func(int64) {})
}

func (t *transfer) curlAndDD(ctx context.Context) error {
	curl, err := t.peers.Command(ctx, "curl", "-sSf", t.url())
	if err != nil {
		return err
	}
	// A disk is not truncated.
	dd := exec.CommandContext(ctx, "dd", "of="+t.target, "bs=4M", "conv=fsync,notrunc", "status=none")
	from, to, err := os.Pipe()
	if err != nil {
		return err
	}
	curl.Stdout, curl.Stderr, dd.Stdin, dd.Stderr = to, os.Stderr, from, os.Stderr
	err = curl.Start()
	if err == nil {
		if err = dd.Start(); err != nil {
			err = errors.Join(err, curl.Process.Kill(), from.Close(), to.Close())
			_ = curl.Wait() // tells of the kill
			return err
		}
	}
	// Each end is the programs' alone, so that either sees the other's end.
	err = errors.Join(err, from.Close(), to.Close())
	if curl.Process != nil {
		err = errors.Join(err, named("curl", curl.Wait()))
	}
	if dd.Process != nil {
		err = errors.Join(err, named("dd", dd.Wait()))
	}
	return err
}

func named(program string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	return nil
}

// freeAddress is an address of the loopback that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
