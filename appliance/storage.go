package appliance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/appliance/medium"
	"github.com/rackseed/rackseed/appliance/screen"
	"github.com/rackseed/rackseed/images/pid1"
	"github.com/rackseed/rackseed/images/pid1/block"
)

// findLimit bounds the search for the stick: slow USB hubs need seconds, and a
// machine that lost its stick must say so.
const findLimit = 2 * time.Minute

// storage mounts what is on the stick: the volume, the site file's partition
// and the data partition, or memory in its place.
func (a *appliance) storage(ctx context.Context) {
	lost := a.stick(ctx)
	if lost != nil {
		a.log.Error("nothing is kept", "error", lost)
		a.change(func(v *screen.View) { v.Lost = lost.Error() })
		a.try("data in memory", pid1.Mount("tmpfs", dataDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700,size=50%"))
		return
	}
	a.try("log", a.journal.Open(dataDir+"/log"))
}

// stick mounts the stick. The error says why nothing can be kept.
func (a *appliance) stick(ctx context.Context) error {
	line, err := pid1.ReadCommandLine()
	if err != nil {
		return err
	}
	find, cancel := context.WithTimeout(ctx, findLimit)
	defer cancel()
	m, err := medium.Find(find, block.System, line.Get("rackseed.medium"))
	if err != nil {
		a.fault(err)
		return errors.New("the stick was not found")
	}
	a.log.Info("found the stick", "volume", m.Volume.Path, "disk", m.Disk.Path)
	a.try("the stick's volume", pid1.Mount(m.Volume.Path, isoDir, "iso9660", unix.MS_RDONLY, ""))
	a.siteVolume(m)

	d, err := m.Data(find, block.System, a.children, a.log)
	if err != nil {
		return err
	}
	if err := pid1.Mount(d.Path, dataDir, "ext4", unix.MS_NOATIME|unix.MS_NOSUID|unix.MS_NODEV, "errors=remount-ro"); err != nil {
		return fmt.Errorf("%w; if the stick is worn out, write the image to a new one", err)
	}
	a.change(func(v *screen.View) {
		v.Data = fmt.Sprintf("kept on %s, %.1f GiB", d.Path, float64(d.Bytes)/(1<<30))
	})
	return nil
}

// siteVolume mounts the partition with the site file.
func (a *appliance) siteVolume(m medium.Medium) {
	p, err := m.Partition(block.System, 3)
	if err != nil {
		a.fault(fmt.Errorf("the site file's partition: %w", err))
		return
	}
	a.try("the site file's partition", pid1.Mount(p.Path, siteDir, "vfat", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""))
}
