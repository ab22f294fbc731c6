package rack

import (
	"strings"
	"testing"
)

func TestReadScreen(t *testing.T) {
	fingerprint := strings.Repeat("AB:", 31) + "CD"
	printed := "Console      https://10.77.0.1\nFingerprint  " + fingerprint + "\nSetup code   1A2B-3C4D-5E6F-7G8H\n"
	got, ok := readScreen(printed)
	if want := (Screen{fingerprint, "1A2B-3C4D-5E6F-7G8H"}); !ok || got != want {
		t.Errorf("got %+v, %t; want %+v", got, ok, want)
	}
	if got, ok := readScreen("Fingerprint  AB:CD\nSetup code\n"); ok {
		t.Errorf("half a screen was taken for a whole one: %+v", got)
	}
}

func TestSiteFile(t *testing.T) {
	file := string(siteFile(Config{Machines: 2, Approve: true, OperatorToken: "t"}))
	for _, want := range []string{"emulated: true", "mac: " + MachineMAC(2), "approve: true", "tokenSHA256: "} {
		if !strings.Contains(file, want) {
			t.Errorf("no %q in the site file:\n%s", want, file)
		}
	}
	if strings.Contains(file, "t\n    token") {
		t.Error("the token itself is in the site file")
	}
}
