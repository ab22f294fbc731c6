// Package carrier says whether a network link can pass frames.
package carrier

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Up is true once the kernel takes notice of the link's carrier (IFF_RUNNING):
// what is sent before is dropped in silence. A switch at the other end may still
// pass nothing for a while. It fails when the link is gone.
func Up(index int) (bool, error) {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return false, fmt.Errorf("carrier of link %d: %w", index, err)
	}
	const up = unix.IFF_LOWER_UP | unix.IFF_RUNNING
	return link.Attrs().RawFlags&up == up, nil
}
