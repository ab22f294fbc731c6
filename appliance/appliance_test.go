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
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/images/pid1/link"
	"github.com/rackseed/rackseed/services/machine"
)

func TestChooseLinks(t *testing.T) {
	mac, err := net.ParseMAC("52:54:00:00:00:01")
	if err != nil {
		t.Fatal(err)
	}
	there := []link.Link{{Name: "eth0", MAC: mac}, {Name: "eth1", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}}}
	s := machine.Site{Links: []machine.SiteLink{
		{MAC: "52:54:00:00:00:01", Address: netip.MustParsePrefix("10.77.0.2/24"), Gateway: netip.MustParseAddr("10.77.0.254")},
		{Interface: "eth7", Address: netip.MustParsePrefix("10.78.0.2/24")},
	}}
	found, missing := chooseLinks(s, there)
	if len(found) != 1 || found[0].name != "eth0" || found[0].gateway != s.Links[0].Gateway || found[0].String() != "eth0 10.77.0.2/24" {
		t.Errorf("found %+v", found)
	}
	if len(missing) != 1 || !strings.Contains(missing[0], "eth7") || !strings.Contains(missing[0], "eth1 02:00:00:00:00:02") {
		t.Errorf("missing %q", missing)
	}
	if found, missing := chooseLinks(machine.Site{}, there); len(found)+len(missing) != 0 {
		t.Errorf("without a site file, links got %v, %v", found, missing)
	}
}

const goodText = `version: 1
name: lab
serviceAddress: 10.77.0.1
links:
  - interface: eth0
    address: 10.77.0.2/24
    dhcp: {from: 10.77.0.100, to: 10.77.0.200}
`

func TestReadSiteFallsBackToTheLastGoodOne(t *testing.T) {
	dir := t.TempDir()
	path, good := filepath.Join(dir, "site.yaml"), filepath.Join(dir, "good.yaml")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(strings.Replace(goodText, "10.77.0.100", "10.77.0.300", 1))
	if s, err := readSite(path, good); err == nil || len(s.Links) != 0 || !strings.Contains(err.Error(), "site.yaml:7:") {
		t.Errorf("a bad file at first: %+v, %v", s, err)
	}
	put(goodText)
	if s, err := readSite(path, good); err != nil || len(s.Links) != 1 {
		t.Fatalf("a good file: %+v, %v", s, err)
	}
	put("links: [")
	s, err := readSite(path, good)
	if err == nil || !strings.Contains(err.Error(), "last good site file") || len(s.Links) != 1 {
		t.Errorf("a bad file then: %+v, %v", s, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if s, err := readSite(path, good); !errors.Is(err, os.ErrNotExist) || len(s.Links) != 1 {
		t.Errorf("no file: %+v, %v", s, err)
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
