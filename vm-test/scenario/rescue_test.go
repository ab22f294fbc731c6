//go:build full

package scenario

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/vm-test/rack"
	"golang.org/x/crypto/ssh"
)

// A machine that is asked to serves a shell to the site's key, over the room's
// network, with the host key that its screen and the console show; and restarts
// when it is told to.
func TestRescue(t *testing.T) {
	signer := newKey(t)
	r, _ := room(t, rack.Config{Machines: 1, Site: fmt.Sprintf("sshKeys:\n  - %s", ssh.MarshalAuthorizedKey(signer.PublicKey()))})
	l := newLaptop(t, r, netip.MustParsePrefix("10.77.0.250/24"))
	console := open(t, r)
	if err := r.PowerOnMachine(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	waitOf(t, console, 1, "session.opened")
	id := machineOf(t, console, 1).ID
	if err := console.Call(t.Context(), http.MethodPost, "/api/machines/"+string(id)+"/rescue", nil, map[string]any{}, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.Machines[0].Kill(); err != nil {
		t.Fatal(err)
	}
	if err := r.PowerOnMachine(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	waitOf(t, console, 1, "rescue.began")
	told := regexp.MustCompile(`ssh root@([0-9.]+) hostKey=(SHA256:\S+)`)
	var found []string
	eventually(t, 2*time.Minute, "the console shows how to log in", func() error {
		var output api.List[api.Lines]
		if err := console.Call(t.Context(), http.MethodGet, "/api/machines/"+string(id)+"/output", nil, nil, &output); err != nil {
			return err
		}
		for _, c := range output.Items {
			if m := told.FindStringSubmatch(strings.Join(c.Lines, "\n")); m != nil {
				found = m
			}
		}
		if found == nil {
			return fmt.Errorf("its output has %d chunks", len(output.Items))
		}
		return nil
	})
	client, err := l.logIn(found[1], signer, func(_ string, _ net.Addr, key ssh.PublicKey) error {
		if fingerprint := ssh.FingerprintSHA256(key); fingerprint != found[2] {
			return fmt.Errorf("the host key is %s, and the console shows %s", fingerprint, found[2])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{
		"id -u":                    "0\n",
		"mke2fs -V 2>&1":           "mke2fs 1.47",
		"echo x | less":            "x\n",
		"rackseed-rescue mount; :": "no disk holds a node of Rackseed: /dev/vda (empty)",
		"mount | grep -c /dev/vd":  "0\n",
	} {
		session, err := client.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		out, err := session.CombinedOutput(command)
		if !strings.Contains(string(out), want) {
			t.Errorf("%s: %q, %v, want %q", command, out, err, want)
		}
	}
	before := waitOf(t, console, 1, "boot.decided")
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start("reboot"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Minute, "it netboots again", func() error {
		if now := waitOf(t, console, 1, "boot.decided"); now == before {
			return fmt.Errorf("its newest boot is event %d", now)
		}
		return nil
	})
}
