package simulate

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/rackseed/rackseed/build/oci"
)

// artifacts are the images that a boot service needs, by their files
// (docs/interfaces.md).
var artifacts = []struct {
	ref, kind string
	files     []string
}{
	{"ipxe", oci.TypeFirmware, []string{"snponly.efi", "undionly.kpxe"}},
	{"shim", oci.TypeFirmware, []string{"shimx64.efi", "grubx64.efi", "mmx64.efi"}},
	{"installer", oci.TypeBoot, []string{"vmlinuz", "initrd.img"}},
	{"service", oci.TypeBoot, []string{"rackseed"}},
	{"node", oci.TypeNode, []string{"root.erofs", "vmlinuz", "initrd.img", "grub.cfg", "shimx64.efi", "grubx64.efi", "mmx64.efi"}},
}

// WriteImages writes an OCI layout with every image that a boot service serves,
// each file a few KiB that only simulated machines can boot. A layout that is
// there is left as it is.
func WriteImages(dir string) (err error) {
	if _, err := os.Stat(filepath.Join(dir, v1.ImageIndexFile)); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("images for simulated machines: %w", err)
	}
	tmp, err := os.MkdirTemp("", "rackseed-simulated-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	var list []oci.Content
	for _, a := range artifacts {
		files := map[string]string{}
		for _, name := range a.files {
			path := filepath.Join(tmp, a.ref+"-"+name)
			if err := os.WriteFile(path, filler(a.ref+"/"+name), 0o600); err != nil {
				return err
			}
			files[name] = path
		}
		list = append(list, oci.Artifact{Ref: a.ref, Type: a.kind, Files: files})
	}
	return oci.Write(dir, list...)
}

// filler is some KiB, the same for each name, that hold no zeros to be skipped.
func filler(name string) []byte {
	text := fmt.Appendf(nil, "Rackseed: %s of a simulated image; no machine boots this.\n", name)
	sum := sha256.Sum256(text)
	for len(text) < 16<<10 {
		text = append(text, sum[:]...)
		sum = sha256.Sum256(sum[:])
	}
	return text
}
