package rootfs

import (
	"archive/tar"
	"path"
	"strings"

	"github.com/rackseed/rackseed/build/tartree"
)

// dropped are folders of the Debian packages that a node has no use for: what
// people read, what makes an initrd, and what is mounted over.
var dropped = []string{
	"boot", "dev", "proc", "run", "sys", "tmp", // their contents; the folders stay
	"etc/initramfs-tools", "usr/share/initramfs-tools",
	"usr/share/bash-completion", "usr/share/bug", "usr/share/doc", "usr/share/info", "usr/share/lintian",
	"usr/share/locale", "usr/share/man", "usr/share/zsh",
	"var/cache", "var/log",
}

// drop says which of Debian's files are left out. Licences stay. So do masks
// in /etc/systemd/system, and no other link there: which units start is said by
// presets alone.
func drop(p string, e tartree.Entry) bool {
	if strings.HasPrefix(p, "usr/share/doc/") && path.Base(p) == "copyright" {
		return false
	}
	if strings.HasPrefix(p, "etc/systemd/system/") {
		return e.Type == tar.TypeSymlink && e.Link != "/dev/null"
	}
	for _, d := range dropped {
		if strings.HasPrefix(p, d+"/") {
			return true
		}
	}
	return false
}

// droppedModules are kernel modules for what a server has not: sound,
// cameras, radio, and the graphics of desktops (those of BMCs stay).
var droppedModules = []string{
	"sound", "drivers/media", "drivers/net/wireless", "drivers/iio", "drivers/staging", "drivers/comedi",
	"drivers/bluetooth", "drivers/isdn", "net/bluetooth", "net/wireless", "net/mac80211",
	"drivers/gpu/drm/amd", "drivers/gpu/drm/i915", "drivers/gpu/drm/nouveau", "drivers/gpu/drm/radeon", "drivers/gpu/drm/xe",
}

// dropModule says which modules are left out; p is below lib/modules/VERSION.
func dropModule(p string) bool {
	for _, d := range droppedModules {
		if strings.HasPrefix(p, "kernel/"+d+"/") {
			return true
		}
	}
	return false
}
