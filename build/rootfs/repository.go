package rootfs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/rackseed/rackseed/build/debian"
	"github.com/rackseed/rackseed/build/pins"
)

// writeRepository makes a flat Debian repository of exactly these packages in
// dir: the files, their index and a Release file
// (https://wiki.debian.org/DebianRepository/Format). It holds copies, because
// in a user namespace apt may not reach into the caller's home.
func writeRepository(ctx context.Context, dir string, packages []debian.Package, files map[string]string) error {
	var index bytes.Buffer
	for _, p := range packages {
		control, err := exec.CommandContext(ctx, "dpkg-deb", "--field", files[p.Name]).Output()
		if err != nil {
			return fmt.Errorf("package %s %s (%s): dpkg-deb --field: %w", p.Name, p.Version, files[p.Name], err)
		}
		name := p.SHA256 + ".deb"
		if err := copyFile(filepath.Join(dir, name), files[p.Name], 0o644); err != nil {
			return fmt.Errorf("package %s %s: %w", p.Name, p.Version, err)
		}
		index.Write(bytes.TrimSpace(control))
		fmt.Fprintf(&index, "\nFilename: ./%s\nSize: %d\nSHA256: %s\n\n", name, p.Size, p.SHA256)
	}
	release := fmt.Sprintf("Suite: %[1]s\nCodename: %[1]s\nDate: %[2]s\nSHA256:\n %[3]x %[4]d Packages\n", pins.DebianSuite,
		pins.Epoch().Format(time.RFC1123), sha256.Sum256(index.Bytes()), index.Len())
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "Packages"), index.Bytes(), 0o644),
		os.WriteFile(filepath.Join(dir, "Release"), []byte(release), 0o644))
}

func copyFile(to, from string, mode os.FileMode) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	_, err = io.Copy(dst, src)
	return err
}
