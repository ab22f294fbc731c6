package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/build/tools"
)

// fileSystems names those that a bench is likely to write to, by statfs(2).
var fileSystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC:      "ext4",
	unix.XFS_SUPER_MAGIC:       "xfs",
	unix.BTRFS_SUPER_MAGIC:     "btrfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	unix.TMPFS_MAGIC:           "tmpfs",
	unix.RAMFS_MAGIC:           "ramfs",
}

func fileSystem(dir string) (string, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return "", fmt.Errorf("the file system of %s: %w", dir, err)
	}
	if name, ok := fileSystems[s.Type]; ok {
		return name, nil
	}
	return fmt.Sprintf("of type %#x", s.Type), nil
}

// onDisk says no to a folder in memory, where fsync costs nothing.
func onDisk(dir string) error {
	name, err := fileSystem(dir)
	if err == nil && (name == "tmpfs" || name == "ramfs") {
		err = fmt.Errorf("%s is in memory (%s): figures of fsync there would mean nothing; run the benches in a clone on a disk", dir, name)
	}
	return err
}

// Facts are what figures depend on: the machine, and the programs. dir is
// where the benches write.
func Facts(ctx context.Context, dir string, peers tools.Root) ([]string, error) {
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return nil, err
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return nil, err
	}
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil, err
	}
	disk, err := fileSystem(dir)
	if err != nil {
		return nil, err
	}
	facts := []string{
		fmt.Sprintf("%s, %d CPUs of %s, Linux %s, %s", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), cpuModel(cpuinfo), bytes.TrimSpace(kernel), runtime.Version()),
		fmt.Sprintf("load of the last minutes %s; files on %s", bytes.TrimSpace(load), disk),
	}
	var versions []string
	for _, program := range []struct{ name, option string }{
		{"curl", "--version"}, {"kea-dhcp4", "-v"}, {"dnsmasq", "--version"}, {"perfdhcp", "-v"},
		{"nginx", "-v"}, {"in.tftpd", "-V"}, {"atftpd", "--version"},
	} {
		cmd, err := peers.Command(ctx, program.name, program.option)
		if err != nil {
			return nil, err
		}
		its, err := versionOf(cmd)
		if err != nil {
			return nil, err
		}
		versions = append(versions, program.name+" "+its)
	}
	dd, err := versionOf(exec.CommandContext(ctx, "dd", "--version"))
	if err != nil {
		return nil, err
	}
	return append(facts, "peers: "+strings.Join(append(versions, "dd "+dd), ", ")), nil
}

// versionOf is the first version in what a program says when it is asked for
// it.
func versionOf(cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%v: %w: %s", cmd.Args, err, out)
	}
	return firstVersion(out), nil
}

// version is one alone, or what follows a name ("nginx/1.26.3").
var version = regexp.MustCompile(`(?:^|[\s/-])(\d+(?:\.\d+)+)`)

func firstVersion(said []byte) string {
	if found := version.FindSubmatch(said); found != nil {
		return string(found[1])
	}
	return "of an unknown version"
}

// cpuModel is the processor's name in /proc/cpuinfo.
func cpuModel(cpuinfo []byte) string {
	for scan := bufio.NewScanner(bytes.NewReader(cpuinfo)); scan.Scan(); {
		if name, value, ok := strings.Cut(scan.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "an unknown model"
}
