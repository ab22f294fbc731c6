package appliance

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/images/pid1/link"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/setup"
)

func TestChooseLinks(t *testing.T) {
	mac, err := net.ParseMAC("52:54:00:00:00:01")
	if err != nil {
		t.Fatal(err)
	}
	there := []link.Link{{Name: "eth0", MAC: mac}, {Name: "eth1", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}}}
	wanted := []machine.SiteLink{
		{MAC: "52:54:00:00:00:01", Address: netip.MustParsePrefix("10.77.0.2/24"), Gateway: netip.MustParseAddr("10.77.0.254")},
		{MAC: "52:54:00:00:00:01", VLAN: 20, Address: netip.MustParsePrefix("10.79.0.2/24")},
		{Interface: "eth7", Address: netip.MustParsePrefix("10.78.0.2/24")},
	}
	found, missing := chooseLinks(wanted, there)
	if want := []assignment{
		{"eth0", "eth0", 0, wanted[0].Address, wanted[0].Gateway},
		{"eth0", "eth0.20", 20, wanted[1].Address, netip.Addr{}},
	}; !slices.Equal(found, want) || found[1].String() != "eth0.20 10.79.0.2/24" {
		t.Errorf("found %+v", found)
	}
	if len(missing) != 1 || !strings.Contains(missing[0], "eth7") || !strings.Contains(missing[0], "eth1 02:00:00:00:00:02") {
		t.Errorf("missing %q", missing)
	}
	if found, missing := chooseLinks(nil, there); len(found)+len(missing) != 0 {
		t.Errorf("without a site file, links got %v, %v", found, missing)
	}

	// What a new site file does not want is undone, where it still is.
	moved := found[1]
	moved.address = netip.MustParsePrefix("10.80.0.2/24")
	gone := assignment{card: "eth9", name: "eth9"}
	if got := superfluous(append(found, gone), []assignment{found[0], moved}, there); !slices.Equal(got, found[1:]) {
		t.Errorf("undone: %+v", got)
	}
}

func TestSerialPorts(t *testing.T) {
	for active, want := range map[string][]port{
		"":                  {{"/dev/ttyS0", false}, {"/dev/ttyS1", false}},
		"tty0 ttyS0\n":      {{"/dev/ttyS0", true}, {"/dev/ttyS1", false}},
		"tty1 ttyS1 hvc0":   {{"/dev/ttyS0", false}, {"/dev/ttyS1", true}, {"/dev/hvc0", true}},
		"ttyAMA0 ttyS0 tty": {{"/dev/ttyS0", true}, {"/dev/ttyS1", false}, {"/dev/ttyAMA0", true}},
	} {
		if got := serialPorts(active); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", active, got, want)
		}
	}
}

// The screen says which site file is in force, and the way to another one.
func TestSiteText(t *testing.T) {
	for _, c := range []struct {
		now    setup.InForce
		holder string
		want   []string // parts
		not    string
	}{
		{setup.InForce{Source: setup.Given}, "", []string{"site.yaml on the stick is in force"}, "type setup"},
		{setup.InForce{Source: setup.Given}, "ttyS0", []string{"on the stick"}, "ttyS0"},
		{setup.InForce{Source: setup.Kept, GivenMissing: true}, "", []string{"kept in the data partition is in force", "type setup"}, "faults"},
		{setup.InForce{Source: setup.Kept}, "", []string{"has faults", "stays in force", "type setup"}, "NONE"},
		{setup.InForce{Source: setup.Nowhere, GivenMissing: true}, "", []string{"NONE", "type setup"}, "faults"},
		{setup.InForce{Source: setup.Nowhere}, "ttyS1", []string{"has faults", "filled in on ttyS1", "take it over"}, "set the site up"},
	} {
		got := siteText(c.now, c.holder)
		for _, part := range c.want {
			if !strings.Contains(got, part) {
				t.Errorf("%+v, %q: %q lacks %q", c.now, c.holder, got, part)
			}
		}
		if strings.Contains(got, c.not) {
			t.Errorf("%+v, %q: %q has %q", c.now, c.holder, got, c.not)
		}
	}
}

func TestServeArguments(t *testing.T) {
	if got := serveArguments(""); slices.Contains(got, "--volatile") {
		t.Errorf("with data kept: %q", got)
	}
	if got := strings.Join(serveArguments("a CD"), "|"); !strings.HasSuffix(got, "|--volatile|a CD") {
		t.Errorf("without: %q", got)
	}
}

func TestPowerPresses(t *testing.T) {
	var b bytes.Buffer
	event := func(kind, code uint16, value uint32) {
		e := make([]byte, 24)
		binary.LittleEndian.PutUint16(e[16:], kind)
		binary.LittleEndian.PutUint16(e[18:], code)
		binary.LittleEndian.PutUint32(e[20:], value)
		b.Write(e)
	}
	event(1, 116, 1) // pressed
	event(0, 0, 0)
	event(1, 116, 0) // released
	event(1, 30, 1)  // another key
	b.WriteString("cut")
	n := 0
	if err := powerPresses(&b, func() { n++ }); !errors.Is(err, io.ErrUnexpectedEOF) || n != 1 {
		t.Errorf("%d presses, %v", n, err)
	}
}

func TestAskStatus(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	answer := `{"site":"lab","consoleURLs":["https://10.77.0.1"],"setupCode":"X","health":[{"name":"dhcp","ok":true,"text":"t"}],"more":1}`
	code := http.StatusOK
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(code)
		fmt.Fprint(w, answer)
	})}
	go func() { _ = srv.Serve(l) }() // ends with the test
	t.Cleanup(func() { srv.Close() })
	c := statusClient(path)
	s, err := askStatus(t.Context(), c)
	if err != nil || s.Site != "lab" || s.ConsoleURLs[0] != "https://10.77.0.1" || !s.Health[0].OK {
		t.Errorf("status %+v, %v", s, err)
	}
	answer = `{"site":`
	if _, err := askStatus(t.Context(), c); err == nil {
		t.Error("a cut off answer was taken")
	}
	code = http.StatusInternalServerError
	if _, err := askStatus(t.Context(), c); err == nil || !strings.Contains(err.Error(), "500") {
		t.Errorf("got %v", err)
	}
}

func TestKernelError(t *testing.T) {
	for record, want := range map[string]string{
		"3,1500,64523336,-;sda: I/O error\n SUBSYSTEM=block\n": "kernel: sda: I/O error",
		"0,1,1,-;panic":                   "kernel: panic",
		"4,1,1,-;only a warning":          "",
		"15,1,1,-;rackseed: our own line": "",
		"11,1,1,-;an error of a program":  "",
		"no record":                       "", "x;y": "", "": "",
	} {
		if got, ok := kernelError([]byte(record)); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %t", record, got, ok)
		}
	}
}
