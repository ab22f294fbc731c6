package netboot

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

// open opens a file of the firmware's for an address, as TFTP does.
func (l *lab) open(t *testing.T, from, name string) (string, error) {
	t.Helper()
	f, err := l.server.firmware.Open(t.Context(), netip.MustParseAddr(from), name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), nil
}

// lease gives a machine an address.
func (l *lab) lease(t *testing.T, mac machine.MAC, address string) {
	t.Helper()
	now := l.server.Now()
	l.propose(t, state.LeaseBind{Lease: machine.Lease{
		Address: netip.MustParseAddr(address), MAC: mac, Bound: now, Expires: now.Add(time.Hour),
	}})
}

// installed brings a machine to its own disk.
func (l *lab) installed(t *testing.T, mac machine.MAC) machine.ID {
	t.Helper()
	s := l.session(t, l.keys(t), mac)
	l.approve(t, s, "node-1", machine.RoleWorker)
	i := l.store.View().InstallIntent(s.Machine)
	l.propose(t, state.IntentClaim{Intent: i.ID, Epoch: i.Epoch, Session: s.Session, Disk: machine.Disk{Path: "/dev/vda", Contents: machine.Empty}})
	l.propose(t, state.InstallReport{Machine: s.Machine, Session: s.Session, Report: wire.Report{
		Number: 1, Intent: i.ID, Epoch: i.Epoch, Step: wire.StepReboot, Status: wire.StepDone}})
	return s.Machine
}

// Whoever boots its own disk gets no boot program, and everybody else does.
func TestFirmware(t *testing.T) {
	const of = "10.77.0.101"
	for name, c := range map[string]struct {
		site      machine.SiteNetboot
		installed bool
		leased    bool
		file      string
		want      string // its content; "": there is none
	}{
		"a machine to install":                   {leased: true, file: "shimx64.efi", want: shimProgram},
		"an address that is nobody's":            {installed: true, file: "shimx64.efi", want: shimProgram},
		"an installed one":                       {installed: true, leased: true, file: "shimx64.efi"},
		"an installed one, BIOS":                 {installed: true, leased: true, file: "undionly.kpxe"},
		"an installed one, iPXE":                 {installed: true, leased: true, file: "snponly.efi"},
		"silence":                                {site: machine.SiteNetboot{LeaveUEFI: machine.LeaveSilence}, installed: true, leased: true, file: "shimx64.efi"},
		"chainload":                              {site: machine.SiteNetboot{LeaveUEFI: machine.LeaveChainload}, installed: true, leased: true, file: "shimx64.efi", want: shimProgram},
		"chainload is no word on BIOS":           {site: machine.SiteNetboot{LeaveUEFI: machine.LeaveChainload}, installed: true, leased: true, file: "undionly.kpxe"},
		"sanboot":                                {site: machine.SiteNetboot{LeaveBIOS: machine.LeaveSanboot}, installed: true, leased: true, file: "undionly.kpxe", want: "iPXE for BIOS"},
		"the second program is not what decides": {installed: true, leased: true, file: "grubx64.efi", want: "GRUB"},
		"GRUB's configuration":                   {installed: true, leased: true, file: "grub/grub.cfg", want: grubConfig("http://10.77.0.1")},
		"no such file":                           {file: "revocations.efi"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t).serve(t)
			site, _ := l.store.View().Site()
			site.Netboot = c.site
			l.propose(t, state.SiteApply{Site: site})
			var id machine.ID
			if c.installed {
				id = l.installed(t, mac1)
			} else {
				l.propose(t, state.MachineSee{ID: "m-00000001", MAC: mac1, Via: "dhcp.discover"})
			}
			if c.leased {
				l.lease(t, mac1, of)
			}
			got, err := l.open(t, of, c.file)
			if c.want == "" {
				if !errors.Is(err, fs.ErrNotExist) {
					t.Fatalf("%q, %v", got, err)
				}
			} else if err != nil || got != c.want {
				t.Fatalf("%q, %v, want %q", got, err, c.want)
			}
			told := ""
			if id != "" {
				told = string(l.store.View().Boot(id).Kind)
			}
			if refused := c.want == "" && id != ""; refused != (told == "local") {
				t.Errorf("it was told to boot %q", told)
			}
		})
	}
}

// What cannot be committed is not decided by silence: the machine gets its
// boot program, and asks again from there.
func TestFirmwareWithoutLeader(t *testing.T) {
	l := newLab(t).serve(t)
	l.installed(t, mac1)
	l.lease(t, mac1, "10.77.0.101")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l.server.firmware.Store = canceled{l.store, ctx}
	if got, err := l.open(t, "10.77.0.101", "shimx64.efi"); err != nil || got != shimProgram {
		t.Errorf("%q, %v", got, err)
	}
	l.server.firmware.Store = l.store
	l.store.before = func(state.Command) { l.clock.Add(int64(answerLimit) + 1) }
	if got, err := l.open(t, "10.77.0.101", "shimx64.efi"); err != nil || got != shimProgram {
		t.Errorf("after too long a commit: %q, %v", got, err)
	}
	// A lease that has run out is nobody's.
	l.store.before = nil
	l.clock.Add(int64(2 * time.Hour))
	if got, err := l.open(t, "10.77.0.101", "shimx64.efi"); err != nil || got != shimProgram {
		t.Errorf("with a lease that has run out: %q, %v", got, err)
	}
}

// UEFI HTTP boot: by the same names, and with the same decision.
func TestHTTPBoot(t *testing.T) {
	l := newLab(t).serve(t)
	l.want(t, 200, shimProgram, nil, "GET", "/uefi/shimx64.efi", nil)
	l.want(t, 200, "", nil, "HEAD", "/uefi/shimx64.efi", nil)
	l.want(t, 200, "GRUB", nil, "GET", "/uefi//grubx64.efi", nil)
	l.want(t, 200, "while [", nil, "GET", "/grub/grub.cfg", nil)
	l.want(t, 404, "", nil, "GET", "/uefi/revocations_sbat.efi", nil)
	l.installed(t, mac1)
	l.lease(t, mac1, "127.0.0.1")
	l.want(t, 404, "boots its own disk", nil, "GET", "/uefi/shimx64.efi", nil)
}

// GRUB gets what iPXE gets, in its language, and never an error's text.
func TestGRUB(t *testing.T) {
	l := newLab(t).serve(t)
	ask := pathGRUB + "?mac=" + string(mac1) + "&uuid=" + uuid1 + "&arch=x86_64&platform=efi"
	a := l.want(t, 200, "rackseed.mode=discovery BOOTIF=01-52-54-00-00-00-01 ", nil, "GET", ask, nil)
	checkGRUB(t, a.body)
	if !strings.Contains(a.body, "(http,10.77.0.1)/blobs/"+digestFor(installerKernel)+"/vmlinuz") {
		t.Errorf("%s", a.body)
	}
	if m, ok := l.store.View().MachineByUUID(uuid1); !ok || m.MACs[0] != mac1 {
		t.Errorf("not made known: %+v", m)
	}
	l.store.before = func(state.Command) { l.clock.Add(int64(answerLimit) + 1) }
	checkGRUB(t, l.want(t, 200, "could not decide just now", nil, "GET", ask, nil).body)
	l.store.before = nil
	for _, path := range []string{pathGRUB, pathBlobs + digestFor("absent") + "/initrd.img"} {
		if a, err := l.raw(nil, "GET", path, nil, "User-Agent", "GRUB 2.12-9+deb13u4"); err == nil {
			t.Errorf("%s is answered to GRUB: %d %s", path, a.code, a.body)
		}
	}
	l.installed(t, mac1)
	checkGRUB(t, l.want(t, 200, "chainloader", nil, "GET", ask, nil).body)
}

// The timeline tells once a decision that a machine has its kernel.
func TestKernelFetched(t *testing.T) {
	l := newLab(t).serve(t)
	kernel := pathBlobs + digestFor(installerKernel) + "/" + fileKernel
	fetched := func() (n int) {
		for _, e := range l.store.View().Events(0, "", 0) {
			if e.Kind == state.ViaKernel {
				n++
			}
		}
		return n
	}
	l.want(t, 200, installerKernel, nil, "GET", kernel, nil)
	if n := fetched(); n != 0 {
		t.Fatalf("told %d times of nobody's address", n)
	}
	l.propose(t, state.MachineSee{ID: "m-00000001", MAC: mac1, Via: "dhcp.discover"})
	l.lease(t, mac1, "127.0.0.1")
	l.want(t, 200, installerKernel, nil, "GET", kernel, nil)
	if n := fetched(); n != 0 {
		t.Fatalf("told %d times before anything was decided", n)
	}
	l.want(t, 200, "mode=discovery", nil, "GET", scriptPath(mac1, ""), nil)
	l.want(t, 200, nodeRoot, nil, "GET", pathBlobs+digestFor(nodeRoot)+"/"+fileKernel, nil)
	l.want(t, 200, "", nil, "HEAD", kernel, nil)
	if n := fetched(); n != 0 {
		t.Fatalf("told %d times of another file", n)
	}
	for range 2 {
		l.want(t, 200, installerKernel, nil, "GET", kernel, nil)
		if n := fetched(); n != 1 {
			t.Fatalf("told %d times", n)
		}
	}
	if b := l.store.View().Boot("m-00000001"); b.Fetched.IsZero() {
		t.Errorf("%+v", b)
	}
}
