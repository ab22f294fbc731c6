package rack

import (
	"strings"
	"testing"

	"github.com/rackseed/rackseed/appliance/screen"
)

func TestReadScreen(t *testing.T) {
	view := screen.View{Status: &screen.Status{
		ConsoleURLs: []string{"https://10.77.0.1"}, Fingerprint: strings.Repeat("ab", 31) + "cd", SetupCode: "1A2B-3C4D-5E6F-7G8H",
	}}
	printed := strings.Join(screen.Head(view, 80), "\r\n")
	got, ok := readScreen(printed)
	if want := (Screen{strings.Repeat("AB:", 31) + "CD", "1A2B-3C4D-5E6F-7G8H"}); !ok || got != want {
		t.Errorf("got %+v, %t; want %+v, from\n%s", got, ok, want, printed)
	}
	view.Status.SetupCode = ""
	if got, ok := readScreen(strings.Join(screen.Head(view, 80), "\r\n")); ok {
		t.Errorf("half a screen was taken for a whole one: %+v", got)
	}
}

func TestSiteFile(t *testing.T) {
	file := string(siteFile(Config{Machines: 3, ControlPlanes: 2, Approve: true, OperatorToken: "t"}))
	for _, want := range []string{
		"emulated: true", "mac: " + MachineMAC(2) + "\n    name: node-2\n    profile: control-plane\n    approve: true",
		"mac: " + MachineMAC(3) + "\n    name: node-3\n    profile: worker\n    approve: true", "tokenSHA256: ",
	} {
		if !strings.Contains(file, want) {
			t.Errorf("no %q in the site file:\n%s", want, file)
		}
	}
	if strings.Contains(file, "t\n    token") {
		t.Error("the token itself is in the site file")
	}
}
