package rescue

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/images/pid1/block"
)

func TestNodeDisk(t *testing.T) {
	list := []block.Device{{Name: "sda", Path: "/dev/sda"}, {Name: "sdb", Path: "/dev/sdb"}, {Name: "sdb5", Path: "/dev/sdb5", Disk: "sdb"}}
	for _, c := range []struct {
		sda, sdb, want string
		path           string // or what the error says
	}{
		{"empty", "Rackseed node node-1", "", "/dev/sdb"},
		{"broken-off Rackseed install", `NTFS (Windows) "Rackseed node"`, "", "/dev/sda"},
		{"Rackseed node a", "Rackseed node b", "", "2 disks hold a node of Rackseed, name one: /dev/sda (Rackseed node a), /dev/sdb (Rackseed node b)"},
		{"Rackseed node a", "Rackseed node b", "/dev/sdb", "/dev/sdb"},
		{"empty", "error", "", "no disk holds a node of Rackseed: /dev/sda (empty), /dev/sdb (unreadable: input/output error)"},
		{"empty", "empty", "/dev/sdx", "there is no disk /dev/sdx"},
	} {
		got, err := nodeDisk(list, c.want, func(d block.Device) (string, error) {
			text := map[string]string{"sda": c.sda, "sdb": c.sdb}[d.Name]
			if text == "error" {
				return "", errors.New("input/output error")
			}
			return text, nil
		})
		if err != nil && err.Error() != c.path || err == nil && got.Path != c.path {
			t.Errorf("%q, %q: %+v, %v, want %s", c.sda, c.sdb, got, err, c.path)
		}
	}
}

func TestHelperTellsItsUse(t *testing.T) {
	var out, trouble bytes.Buffer
	if code := Helper(nil, &out, &trouble); code != 2 || !strings.HasPrefix(trouble.String(), "usage: rackseed-rescue mount") {
		t.Errorf("%d, %q", code, trouble.String())
	}
}
