//go:build full

package scenario

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rackseed/rackseed/images/pid1/gpt"
	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/vm-test/parts"
	"github.com/rackseed/rackseed/vm-test/qemu"
	"github.com/rackseed/rackseed/vm-test/rack"
)

// All replicas are lost, and a backup and the recovery key are left: a stick that is
// written anew goes on from them, by what is typed at its screen. Whoever knew the
// console's fingerprint finds it there, with the same events.
func TestRestore(t *testing.T) {
	socket := ""
	r, p := room(t, rack.Config{Setup: func(_ int, m *qemu.Machine) { m.Typed, socket = true, m.SerialSocket() }})
	console := open(t, r)
	var key api.RecoveryKey
	if err := console.Call(t.Context(), http.MethodPost, "/api/recovery-key", nil, struct{}{}, &key); err != nil {
		t.Fatal(err)
	}
	var cluster api.ClusterStart
	if err := console.Call(t.Context(), http.MethodGet, "/api/cluster", nil, nil, &cluster); err != nil {
		t.Fatal(err)
	}
	before := serviceEvents(t, console)
	backup, err := console.Raw(t.Context(), http.MethodGet, "/api/backup", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Appliance.Kill(); err != nil {
		t.Fatal(err)
	}

	newStick(t, r, p, backup)
	start := time.Now()
	other := open(t, r)
	if err := console.Call(t.Context(), http.MethodGet, "/api/cluster", nil, nil, &cluster); err == nil {
		t.Fatal("the new stick has the fingerprint of the old one")
	}
	serial := connect(t, socket)
	serial.expect("", "recover\r")
	serial.expect(cluster.ID, "")
	serial.expect("as generation 2 from backup", "")
	serial.expect("began by itself", "")
	// The look fails for want of the key, and says how it is done with it.
	serial.expect("bring the recovery key", "")
	serial.expect("type recover NAME AGE-SECRET-KEY-1...", "")
	serial.expect("Press Enter to go back", "recover "+cluster.ID+" "+key.Key+"\r")
	serial.expect("Recovered.", "")
	var after []byte
	eventually(t, time.Minute, "the console has the old fingerprint", func() (err error) {
		after, err = console.Raw(t.Context(), http.MethodGet, "/api/cluster", nil, nil)
		return err
	})
	t.Logf("recovered %.0f s after the new stick's power-on: %s", time.Since(start).Seconds(), after)
	if _, err := other.Machines(t.Context()); err == nil {
		t.Error("the new stick's own fingerprint is still there")
	}
	events := serviceEvents(t, console)
	for i, e := range before {
		if i >= len(events) || events[i].Text != e.Text {
			t.Fatalf("event %d was %q; now there are\n%s", e.Seq, e.Text, texts(events))
		}
	}
}

// newStick puts an empty stick in the place of the appliance's, with the image and a
// backup on it.
func newStick(t *testing.T, r *rack.Rack, p parts.Parts, backup []byte) {
	t.Helper()
	disk := filepath.Join(r.Appliance.Dir, "disk.img")
	info, err := os.Stat(disk)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Truncate(disk, 0), r.RewriteStick(t.Context()), os.Truncate(disk, info.Size())); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	// As Linux does it, too: the image's table is not at the stick's end yet.
	table, err := gpt.Read(io.NewSectionReader(f, 0, info.Size()), info.Size(), 512)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	for _, part := range table.Partitions {
		if part.Number != 3 {
			continue
		}
		file := filepath.Join(r.Dir, "site.backup")
		if err := os.WriteFile(file, backup, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd, err := p.Tools.Command(t.Context(), "mcopy", "-i", disk+"@@"+strconv.FormatUint(part.First*512, 10), file, "::rackseed.backup")
		if err != nil {
			t.Fatal(err)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("mcopy: %v: %s", err, out)
		}
		return
	}
	t.Fatalf("the stick has no partition 3: %+v", table.Partitions)
}
