package rack

import (
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/kube/pki"
	"github.com/rackseed/rackseed/services/ignition"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/site"
	"github.com/rackseed/rackseed/services/wire"
)

// A real Ignition in the clear is noticed, sealed it is not.
func TestSentry(t *testing.T) {
	parsed, err := site.Parse("site.yaml", siteFile(Config{Machines: 1}))
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := pki.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	config, err := ignition.Assemble(ignition.Input{
		Site: parsed, Profile: parsed.Profiles[0], NodeSeed: make([]byte, 32), ServiceURL: "http://" + ServiceAddress,
		Machine: machine.Machine{
			ID: "m-00000001", Name: "node-1", Address: netip.MustParseAddr("10.77.0.10"), MACs: []machine.MAC{machine.MAC(MachineMAC(1))},
			Inventory: &machine.Inventory{BootMAC: machine.MAC(MachineMAC(1))},
		},
		Secrets: func(name string) ([]byte, bool) { b, ok := secrets[name]; return b, ok },
	}, config.Contributor{})
	if err != nil {
		t.Fatal(err)
	}
	var open Sentry
	if _, err := open.Write(config); err != nil {
		t.Fatal(err)
	}
	if seen, _ := open.Seen(); len(seen) < 2 {
		t.Errorf("an Ignition in the clear went by, and only this was noticed: %q", seen)
	}
	join, err := json.Marshal(wire.JoinSecret{Token: "abcdef.0123456789abcdef", CACertHashes: []string{"sha256:00"}})
	if err != nil {
		t.Fatal(err)
	}
	var token Sentry
	if _, err := token.Write(join); err != nil {
		t.Fatal(err)
	}
	if seen, _ := token.Seen(); len(seen) != 1 {
		t.Errorf("what a node joins by went by in the clear, and this was noticed: %q", seen)
	}
	_, key, err := wire.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := wire.Seal(key.PublicKey().Bytes(), "test", config)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(sealed)
	if err != nil {
		t.Fatal(err)
	}
	var closed Sentry
	if _, err := closed.Write(body); err != nil {
		t.Fatal(err)
	}
	if seen, looked := closed.Seen(); len(seen) > 0 || looked != int64(len(body)) {
		t.Errorf("in a sealed Ignition %q was noticed, %d bytes looked at", seen, looked)
	}
	if got := string(base64Of("abcd")); got != base64.StdEncoding.EncodeToString([]byte("abc")) {
		t.Errorf("base64Of: %q", got)
	}
}
