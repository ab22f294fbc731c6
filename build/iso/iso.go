// Package iso assembles the stick's image: one file that boots as a USB stick
// and as a CD, by BIOS, UEFI and UEFI Secure Boot, and that carries the site
// file on a partition which every operating system shows.
//
// It is made in two steps. Base takes everything that is large, and is kept in
// the cache; Personalise copies it and writes the site file's partition and the
// boot loader's environment block into the copy, so that another site file
// costs a second.
package iso

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rackseed/rackseed/images/pid1/gpt"
)

// Format changes when the same Spec gives other bytes: an input of the step.
const Format = "1"

const (
	// Label of the ISO9660 volume and of the site file's FAT.
	Label = "RACKSEED"
	// FileName of the image in Base's folder.
	FileName   = "rackseed.iso"
	layoutName = "layout.json"

	espKiB  = 6144
	siteMiB = 16 // as FAT16: Windows shows it, and there is room for more files

	// Volume serial numbers of the FATs, fixed for the same bytes each time.
	espSerial, siteSerial = "52534546", "52535354"
)

// Command makes the command of a private tool: xorriso, grub-mkimage,
// mkfs.fat, mmd, mcopy.
type Command func(ctx context.Context, name string, args ...string) (*exec.Cmd, error)

// Spec says what goes into the image.
type Spec struct {
	Kernel string // vmlinuz
	Initrd string
	OCI    string // folder: the OCI layout with all artifacts
	Boot   string // unpacked Debian root with GRUB and shim
	// Build names this build among others: the volume's UUID is made of it,
	// so that a second stick in the same machine is not taken for this one.
	Build string
	Epoch int64 // date of everything
	Run   Command
	Log   io.Writer
}

// Layout says where in the base image the personal parts are.
type Layout struct {
	UUID       string `json:"uuid"`       // of the ISO9660 volume
	SiteOffset int64  `json:"siteOffset"` // bytes
	SiteSize   int64  `json:"siteSize"`   // bytes
	EnvOffset  int64  `json:"envOffset"`  // bytes; GRUB's environment block
}

// Base makes the image without a site file in folder out, and its Layout.
func Base(ctx context.Context, out string, s Spec) error {
	work, err := os.MkdirTemp("", "rackseed-iso-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	m := maker{Spec: s, work: work, uuid: volumeUUID(s.Epoch, s.Build)}
	esp, err := m.esp(ctx)
	if err != nil {
		return fmt.Errorf("EFI system partition: %w", err)
	}
	core, err := m.biosCore(ctx)
	if err != nil {
		return fmt.Errorf("GRUB for BIOS: %w", err)
	}
	site := filepath.Join(work, "site.img")
	if err := m.fat(ctx, site, Label, siteSerial, siteMiB*1024, nil); err != nil {
		return fmt.Errorf("site partition: %w", err)
	}
	image := filepath.Join(out, FileName)
	if err := m.xorriso(ctx, image, esp, core, site); err != nil {
		return err
	}
	layout, err := findLayout(image, m.uuid)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(layout, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, layoutName), append(b, '\n'), 0o644)
}

type maker struct {
	Spec
	work, uuid string
}

// volumeUUID is the volume's modification date, which is what blkid, GRUB and
// the kernel's tools call the UUID of an ISO9660 volume; its time of day is made of
// the build's name. ISO 9660 (ECMA-119 §8.4.26.1) counts to hundredths.
func volumeUUID(epoch int64, build string) string {
	const day = 24 * 60 * 60 * 100
	n := int64(checksum(build) % day)
	t := time.Unix(epoch, 0).UTC().Truncate(24 * time.Hour).Add(time.Duration(n) * 10 * time.Millisecond)
	return t.Format("2006-01-02-15-04-05-") + fmt.Sprintf("%02d", n%100)
}

// esp is the FAT that UEFI boots from, on the stick and as El Torito image.
// The signed GRUB ("gcd", made for removable media) reads /boot/grub/grub.cfg of
// the partition it came from before it looks for other media.
func (m maker) esp(ctx context.Context) (string, error) {
	cfg := filepath.Join(m.work, "esp.cfg")
	if err := os.WriteFile(cfg, []byte(espConfig(m.uuid)), 0o644); err != nil {
		return "", err
	}
	img := filepath.Join(m.work, "esp.img")
	return img, m.fat(ctx, img, "RSEFI", espSerial, espKiB, []fatFile{
		{"EFI/BOOT/BOOTX64.EFI", filepath.Join(m.Boot, "usr/lib/shim/shimx64.efi.signed")},
		{"EFI/BOOT/grubx64.efi", filepath.Join(m.Boot, "usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed")},
		{"EFI/BOOT/mmx64.efi", filepath.Join(m.Boot, "usr/lib/shim/mmx64.efi.signed")},
		{"boot/grub/grub.cfg", cfg},
	})
}

// biosCore is GRUB's core image for El Torito, which the hybrid MBR loads too.
func (m maker) biosCore(ctx context.Context) (string, error) {
	early := filepath.Join(m.work, "early.cfg")
	if err := os.WriteFile(early, []byte(earlyConfig(m.uuid)), 0o644); err != nil {
		return "", err
	}
	core := filepath.Join(m.work, "eltorito.img")
	args := []string{
		"-d", filepath.Join(m.Boot, "usr/lib/grub/i386-pc"), "-O", "i386-pc-eltorito",
		"-c", early, "-p", "/boot/grub", "-o", core,
	}
	return core, run(ctx, m.Spec, "grub-mkimage", append(args, strings.Fields(biosModules)...)...)
}

const biosModules = "biosdisk iso9660 part_gpt part_msdos fat search search_label search_fs_uuid search_fs_file " +
	"normal linux serial terminal echo configfile loadenv test all_video ls reboot halt minicmd boot"

// nodeModules are what images/node/grub.cfg needs.
const nodeModules = "biosdisk part_gpt fat normal linux serial terminal echo configfile loadenv test true all_video ls reboot halt minicmd boot"

// NodeBIOS makes GRUB for a node's disk in folder out: boot.img, which the BIOS
// loads from the first sector, and core.img, which has all it needs. Its prefix
// is on the second partition of the disk that it was loaded from. The installer
// says in both where on the disk they are.
func NodeBIOS(ctx context.Context, out string, s Spec) error {
	from := filepath.Join(s.Boot, "usr/lib/grub/i386-pc")
	args := []string{"-d", from, "-O", "i386-pc", "-p", "(,gpt2)/boot/grub", "-o", filepath.Join(out, "core.img")}
	if err := run(ctx, s, "grub-mkimage", append(args, strings.Fields(nodeModules)...)...); err != nil {
		return fmt.Errorf("GRUB for BIOS: %w", err)
	}
	b, err := os.ReadFile(filepath.Join(from, "boot.img"))
	if err != nil {
		return fmt.Errorf("GRUB for BIOS: %w", err)
	}
	return os.WriteFile(filepath.Join(out, "boot.img"), b, 0o644)
}

// xorriso writes the image; see grub-mkrescue and xorrisofs(1) for what the
// hybrid needs. Partitions: 1 the ISO9660 volume, 2 the ESP, 3 the site file's.
func (m maker) xorriso(ctx context.Context, out, esp, core, site string) error {
	grubCfg, env := filepath.Join(m.work, "grub.cfg"), filepath.Join(m.work, "grubenv")
	block, err := envBlock(m.uuid, false)
	if err != nil {
		return err
	}
	if err := errors.Join(
		os.WriteFile(grubCfg, []byte(Menu(m.uuid)), 0o644),
		os.WriteFile(env, block, 0o644),
	); err != nil {
		return err
	}
	date := strings.ReplaceAll(m.uuid, "-", "")
	args := []string{
		"-as", "mkisofs", "-quiet", "-o", out, "-V", Label, "-r", "-J", "-joliet-long", "-iso-level", "3",
		"--modification-date=" + date, "--set_all_file_dates", date, "-no-pad",
		"--grub2-mbr", filepath.Join(m.Boot, "usr/lib/grub/i386-pc/boot_hybrid.img"),
		"-partition_offset", "16", "--mbr-force-bootable",
		"-append_partition", "2", "0xef", esp,
		"-append_partition", "3", strings.ToUpper(gpt.TypeBasicData.String()), site,
		"-appended_part_as_gpt",
		"-c", "/boot/boot.cat", "-b", "/boot/grub/i386-pc/eltorito.img", "-no-emul-boot",
		"-boot-load-size", "4", "-boot-info-table", "--grub2-boot-info",
		"-eltorito-alt-boot", "-e", "--interval:appended_partition_2:::", "-no-emul-boot",
		"-boot-load-size", strconv.Itoa(espKiB * 2),
		"-graft-points",
	}
	for _, g := range [][2]string{
		{"/boot/grub/i386-pc/eltorito.img", core},
		{"/boot/grub/grub.cfg", grubCfg},
		{"/boot/grub/grubenv", env},
		{"/boot/vmlinuz", m.Kernel},
		{"/boot/initrd.img", m.Initrd},
		{"/rackseed/oci", m.OCI},
	} {
		args = append(args, g[0]+"="+escapeGraft(g[1]))
	}
	return run(ctx, m.Spec, "xorriso", args...)
}

func escapeGraft(p string) string { return strings.NewReplacer(`\`, `\\`, "=", `\=`).Replace(p) }

// findLayout looks the personal parts up in the finished image, and checks
// that the partitions are what the appliance will look for.
func findLayout(image, uuid string) (Layout, error) {
	f, err := os.Open(image)
	if err != nil {
		return Layout{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Layout{}, err
	}
	table, err := gpt.Read(f, info.Size(), 512)
	if err != nil {
		return Layout{}, fmt.Errorf("%s: %w", image, err)
	}
	// The appliance makes its data partition there; see docs/interfaces.md.
	const dataOffset = 8 << 30
	if info.Size() > dataOffset {
		return Layout{}, fmt.Errorf("%s has %d bytes, and the stick's data partition begins at %d", image, info.Size(), int64(dataOffset))
	}
	l := Layout{UUID: uuid}
	for _, p := range table.Partitions {
		if p.Number > 3 {
			return Layout{}, fmt.Errorf("%s: partition %d (%q) is in the data partition's way", image, p.Number, p.Name)
		}
		if p.Number == 3 && p.Type == gpt.TypeBasicData {
			l.SiteOffset, l.SiteSize = int64(p.First)*512, int64(p.Last-p.First+1)*512
		}
	}
	if l.SiteSize != siteMiB<<20 {
		return Layout{}, fmt.Errorf("%s: partition 3 has %d bytes, a FAT of %d MiB is expected", image, l.SiteSize, siteMiB)
	}
	block, err := envBlock(uuid, false)
	if err != nil {
		return Layout{}, err
	}
	// Files begin at a block of 2048 bytes. The block names the volume's UUID,
	// so it is the only one.
	b := make([]byte, 1<<20)
	for off := int64(0); off < info.Size() && l.EnvOffset == 0; off += int64(len(b)) {
		n, err := f.ReadAt(b, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return Layout{}, fmt.Errorf("%s: %w", image, err)
		}
		for i := 0; i+len(block) <= n; i += 2048 {
			if bytes.Equal(b[i:i+len(block)], block) {
				l.EnvOffset = off + int64(i)
			}
		}
	}
	if l.EnvOffset == 0 {
		return Layout{}, fmt.Errorf("%s: GRUB's environment block is not found", image)
	}
	return l, nil
}

func run(ctx context.Context, s Spec, name string, args ...string) error {
	cmd, err := s.Run(ctx, name, args...)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, s.Log), io.MultiWriter(&out, s.Log)
	cmd.Env = append(cmd.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(s.Epoch, 10))
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, strings.TrimSpace(out.String()))
	}
	return nil
}
