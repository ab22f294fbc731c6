package simulate

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	config "github.com/coreos/ignition/v2/config/v3_6"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

var errNoNode = errors.New("the key of a node is missing")

// contents of a disk that the installer has written.
type contents struct {
	Path   string          `json:"path"` // of the disk
	Node   wire.NodeConfig `json:"node"`
	Joined bool            `json:"joined"` // kubeadm ended well: it never runs again
	Told   bool            `json:"told"`   // and the boot service knows
}

// readDisk finds what an earlier process installed.
func (m *Machine) readDisk() error {
	if m.Disk == "" || m.installed != nil {
		return nil
	}
	b, err := os.ReadFile(m.Disk)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("its disk: %w", err)
	}
	var c contents
	if err := json.Unmarshal(b, &c); err != nil || len(c.Node.KeySeed) != ed25519.SeedSize {
		return fmt.Errorf("its disk, %s, holds no node; remove it: %w", m.Disk, errors.Join(err, errNoNode))
	}
	m.installed = &c
	m.write(c.Path, machine.NodeDisk(c.Node.Name))
	return nil
}

// writeDisk keeps what is installed. It holds the node's key, as a real disk
// does.
func (m *Machine) writeDisk() error {
	if m.Disk == "" {
		return nil
	}
	b, err := json.Marshal(m.installed)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(m.Disk), 0o700); err != nil {
		return fmt.Errorf("its disk: %w", err)
	}
	if err := os.WriteFile(m.Disk, b, 0o600); err != nil {
		return fmt.Errorf("its disk: %w", err)
	}
	return nil
}

// file is one that Ignition writes.
type file struct {
	path     string
	contents []byte
}

// ignitionFiles are the files of an Ignition config, as Ignition's own library
// reads it.
func ignitionFiles(text []byte) ([]file, error) {
	c, found, err := config.Parse(text)
	if err == nil && found.IsFatal() {
		err = errors.New("it is refused")
	}
	if err != nil {
		return nil, fmt.Errorf("Ignition: %w: %s", err, found.String())
	}
	var files []file
	for _, f := range c.Storage.Files {
		out := file{path: f.Path}
		if f.Contents.Source != nil {
			if out.contents, err = dataURL(*f.Contents.Source); err != nil {
				return nil, fmt.Errorf("Ignition: file %s: %w", f.Path, err)
			}
		}
		files = append(files, out)
	}
	return files, nil
}

// dataURL reads RFC 2397.
func dataURL(s string) ([]byte, error) {
	after, ok := strings.CutPrefix(s, "data:")
	kind, data, comma := strings.Cut(after, ",")
	if !ok || !comma {
		return nil, fmt.Errorf("a data URL is expected, not %.40q", s)
	}
	if strings.HasSuffix(kind, ";base64") {
		return base64.StdEncoding.DecodeString(data)
	}
	text, err := url.PathUnescape(data)
	return []byte(text), err
}
