//go:build host

package tftp

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/rackseed/rackseed/services/netns"
)

func TestMain(m *testing.M) { netns.Main(m) }

// Foreign clients fetch over a cable from an address that is the second of its
// link, as the service address is: an answer from the first would be dropped.
func TestForeignClients(t *testing.T) {
	peer := netns.Join(t, "veth0", "10.77.0.2/24", "10.77.0.9/24")
	netns.Run(t, "ip", "addr", "add", "10.77.0.3/24", "dev", "veth0")
	files := memory{"snponly.efi": random(300_001)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	conn, err := open(ctx, "10.77.0.3:69")
	if err != nil {
		t.Fatal(err)
	}
	go func() { done <- serve(ctx, conn, files, slog.Default()) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	out := filepath.Join(t.TempDir(), "got")
	for _, client := range [][]string{
		{"busybox", "tftp", "-g", "-b", "1468", "-r", "/snponly.efi", "-l", out, "10.77.0.3"},
		{"busybox", "tftp", "-g", "-r", `\snponly.efi`, "-l", out, "10.77.0.3"},
		{"tftp", "-m", "binary", "10.77.0.3", "-c", "get", "snponly.efi", out},
		{"atftp", "--option", "blksize 65464", "--option", "tsize 0", "-g", "-r", "snponly.efi", "-l", out, "10.77.0.3", "69"},
	} {
		peer.Run(client[0], client[1:]...)
		if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, files["snponly.efi"]) {
			t.Errorf("%v: %d bytes, error %v; want %d", client, len(got), err, len(files["snponly.efi"]))
		}
		if err := os.Remove(out); err != nil {
			t.Fatal(err)
		}
	}
}
