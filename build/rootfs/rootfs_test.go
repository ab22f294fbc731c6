package rootfs

import (
	"archive/tar"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/build/tartree"
)

func TestDrop(t *testing.T) {
	for p, want := range map[string]bool{
		"usr/share/doc/zstd/copyright":     false,
		"usr/share/doc/zstd/changelog.gz":  true,
		"usr/share/doc":                    false,
		"usr/share/docker/x":               false,
		"boot/vmlinuz":                     true,
		"boot":                             false,
		"dev/null":                         true,
		"usr/lib/x86_64-linux-gnu/libc.so": false,
		"etc/systemd/system/foo.service":   false,
	} {
		if got := drop(p, tartree.Entry{Type: tar.TypeReg}); got != want {
			t.Errorf("drop(%s) = %t", p, got)
		}
	}
	if !drop("etc/systemd/system/multi-user.target.wants/a.service", tartree.Entry{Type: tar.TypeSymlink, Link: "/usr/lib/systemd/system/a.service"}) {
		t.Error("a link by which Debian starts a unit stays")
	}
	if drop("etc/systemd/system/a.service", tartree.Entry{Type: tar.TypeSymlink, Link: "/dev/null"}) {
		t.Error("a mask is dropped")
	}
}

func TestDropModule(t *testing.T) {
	for p, want := range map[string]bool{
		"kernel/sound/core/snd.ko.xz":               true,
		"kernel/drivers/gpu/drm/amd/amdgpu.ko.xz":   true,
		"kernel/drivers/gpu/drm/ast/ast.ko.xz":      false,
		"kernel/drivers/net/ethernet/intel/x.ko.xz": false,
		"kernel/net/wireless/cfg80211.ko.xz":        true,
		"kernel/fs/erofs/erofs.ko.xz":               false,
		"modules.builtin":                           false,
	} {
		if got := dropModule(p); got != want {
			t.Errorf("dropModule(%s) = %t", p, got)
		}
	}
}

func TestApplyPresets(t *testing.T) {
	tree := tartree.Tree{}
	for p, text := range map[string]string{
		"usr/lib/systemd/system-preset/90-x.preset":      "# ours\nenable a.service\nenable getty@.service\nenable tpl@.service one two\nenable masked.service\nenable parent.service\ndisable *\n",
		"usr/lib/systemd/system-preset/99-debian.preset": "enable *\n",
		"usr/lib/systemd/system/a.service":               "[Unit]\nWantedBy=wrong.target\n[Install]\nWantedBy=multi-user.target other.target\nAlias=alias.service\n",
		"usr/lib/systemd/system/b.service":               "[Install]\nWantedBy=multi-user.target\n",
		"usr/lib/systemd/system/getty@.service":          "[Install]\nWantedBy=getty.target\nDefaultInstance=tty1\n",
		"usr/lib/systemd/system/tpl@.service":            "[Install]\nRequiredBy=x.target\n",
		"usr/lib/systemd/system/masked.service":          "[Install]\nWantedBy=multi-user.target\n",
		"usr/lib/systemd/system/parent.service":          "[Install]\nAlso=b.service absent.socket\n",
		"etc/systemd/system/a.service":                   "[Install]\nWantedBy=multi-user.target\n",
	} {
		if err := tree.Bytes(p, 0o644, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tree.Symlink("etc/systemd/system/masked.service", "/dev/null"); err != nil {
		t.Fatal(err)
	}
	if err := applyPresets(tree); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range tree.Paths() {
		if e := tree[p]; e.Type == tar.TypeSymlink {
			got = append(got, strings.TrimPrefix(p, "etc/systemd/system/")+" "+e.Link)
		}
	}
	want := []string{
		"getty.target.wants/getty@tty1.service /usr/lib/systemd/system/getty@.service",
		"masked.service /dev/null",
		"multi-user.target.wants/a.service /etc/systemd/system/a.service",
		"multi-user.target.wants/b.service /usr/lib/systemd/system/b.service",
		"x.target.requires/tpl@one.service /usr/lib/systemd/system/tpl@.service",
		"x.target.requires/tpl@two.service /usr/lib/systemd/system/tpl@.service",
	}
	if !slices.Equal(got, want) {
		t.Errorf("links\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestParsePresetRefuses(t *testing.T) {
	for text, want := range map[string]string{"enabel x.service": "enable or disable", "enable": "enable or disable", "enable [": "syntax error"} {
		if _, err := parsePreset(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", text, err, want)
		}
	}
}

func TestBootstrapMode(t *testing.T) {
	has := func(names ...string) func(string) (string, error) {
		return func(name string) (string, error) {
			if slices.Contains(names, name) {
				return "/usr/bin/" + name, nil
			}
			return "", os.ErrNotExist
		}
	}
	ranges := func(text string) func(string) ([]byte, error) {
		return func(string) ([]byte, error) { return []byte(text), nil }
	}
	const uid = 4000000 // nobody's name
	for _, c := range []struct {
		name     string
		uid      int
		look     func(string) (string, error)
		read     func(string) ([]byte, error)
		mode     string
		complain string
	}{
		{"root", 0, has(), ranges(""), "root", ""},
		{"user with all", uid, has("newuidmap", "newgidmap"), ranges("4000000:100000:65536\n"), "unshare", ""},
		{"no uidmap", uid, has(), ranges("4000000:100000:65536\n"), "", "apt-get install uidmap"},
		{"no range", uid, has("newuidmap", "newgidmap"), ranges("other:100000:65536\n"), "", "usermod --add-subuids"},
		{"too small", uid, has("newuidmap", "newgidmap"), ranges("4000000:100000:1000\n"), "", "usermod --add-subuids"},
		{"no file", uid, has("newuidmap", "newgidmap"), func(string) ([]byte, error) { return nil, errors.New("gone") }, "", "usermod --add-subuids"},
	} {
		mode, err := bootstrapMode(c.uid, c.look, c.read)
		if c.complain != "" {
			if err == nil || !strings.Contains(err.Error(), c.complain) {
				t.Errorf("%s: error %v, want %q in it", c.name, err, c.complain)
			}
		} else if err != nil || mode != c.mode {
			t.Errorf("%s: %q, %v; want %q", c.name, mode, err, c.mode)
		}
	}
}
