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

const (
	// findLimit bounds the search for the stick: slow USB hubs need seconds, and
	// a machine that lost its stick must say so.
	findLimit = 2 * time.Minute
	// makeLimit bounds the making of the data partition, on slow flash. One that
	// was cut off is made anew by the next start.
	makeLimit = 10 * time.Minute
	// unplugLook is how often it is looked whether a second stick is gone.
	unplugLook = time.Second
)

// storage mounts what is on the stick: the volume, the site file's partition
// and the data partition. Without that, memory is in its place, and a.lost says
// why: the boot service then serves no machine, unless the site file says so.
func (a *appliance) storage(ctx context.Context) {
	if lost := a.stick(ctx); lost != nil {
		a.log.Error("nothing is kept", "error", lost)
		a.lost = lost.Error()
		a.change(func(v *screen.View) { v.Lost = a.lost })
		a.try("data in memory", pid1.Mount("tmpfs", dataDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700,size=50%"))
		return
	}
	a.try("log", a.journal.Open(dataDir+"/log"))
}

// stick mounts the stick. The error says why nothing can be kept, and what can
// be done.
func (a *appliance) stick(ctx context.Context) error {
	line, err := pid1.ReadCommandLine()
	if err != nil {
		return err
	}
	m, err := a.find(ctx, line.Get("rackseed.medium"))
	if err != nil {
		a.fault(err)
		return errors.New("the stick was not found; plug it into another port, and start again")
	}
	a.log.Info("found the stick", "volume", m.Volume.Path, "disk", m.Disk.Path)
	a.try("the stick's volume", pid1.Mount(m.Volume.Path, isoDir, "iso9660", unix.MS_RDONLY, ""))
	a.siteVolume(m)

	ctx, cancel := context.WithTimeout(ctx, makeLimit)
	defer cancel()
	d, err := m.Data(ctx, block.System, a.children, a.log)
	if err != nil {
		return err
	}
	if err := mountData(d.Path); err != nil {
		return err
	}
	a.change(func(v *screen.View) {
		v.Data = fmt.Sprintf("kept on %s, %.1f GiB", d.Path, float64(d.Bytes)/(1<<30))
	})
	return nil
}

// find finds the stick. While there are two of one build none is used, however
// long it takes somebody to unplug one: nothing runs yet that could be stopped.
func (a *appliance) find(ctx context.Context, uuid string) (medium.Medium, error) {
	told := ""
	for {
		limit, cancel := context.WithTimeout(ctx, findLimit)
		m, err := medium.Find(limit, block.System, uuid)
		cancel()
		var twins *medium.TwinsError
		if !errors.As(err, &twins) {
			a.change(func(v *screen.View) { v.Service = "" })
			return m, err
		}
		if why := twins.Error(); why != told {
			told = why
			a.log.Error(why)
			a.change(func(v *screen.View) { v.Service = why })
		}
		select {
		case <-ctx.Done():
			return medium.Medium{}, err
		case <-time.After(unplugLook):
		}
	}
}

// mountData mounts the data partition, to be written to.
func mountData(path string) error {
	const repair = "it is left alone; repair it on another machine (e2fsck -f), or, if the stick is worn out, copy it to a new one; then start again"
	if err := pid1.Mount(path, dataDir, "ext4", unix.MS_NOATIME|unix.MS_NOSUID|unix.MS_NODEV, "errors=remount-ro"); err != nil {
		return fmt.Errorf("%w; %s", err, repair)
	}
	var fs unix.Statfs_t
	err := unix.Statfs(dataDir, &fs)
	if err == nil && fs.Flags&unix.ST_RDONLY != 0 {
		err = errors.New("it could be mounted only for reading")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("the data partition %s: %w; %s", path, err, repair), pid1.UnmountAll(dataDir))
	}
	return nil
}

// siteVolume mounts the partition with the site file.
func (a *appliance) siteVolume(m medium.Medium) {
	path, err := m.SitePartition(block.System)
	if err != nil {
		a.fault(fmt.Errorf("the site file's partition: %w", err))
		return
	}
	a.try("the site file's partition", pid1.Mount(path, siteDir, "vfat", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""))
}
