package wire

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestNodeConfig(t *testing.T) {
	want := NodeConfig{
		URL: "http://10.77.0.1", Machine: "m-00000001", Name: "node-1", Role: "control-plane",
		Address: netip.MustParsePrefix("10.77.0.11/24"), Service: netip.MustParseAddr("10.77.0.1"),
		KeySeed: make([]byte, 32), PodSubnet: netip.MustParsePrefix("10.244.0.0/16"),
		ServiceSubnet: netip.MustParsePrefix("10.96.0.0/16"), Emulated: true,
	}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseNodeConfig(b); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read back: %+v, %v", got, err)
	}
	for _, broken := range []string{"", "{}", `{"url":"http://h","machine":"m-1","name":"n","keySeed":"AAAA"}`} {
		if _, err := ParseNodeConfig([]byte(broken)); err == nil || !strings.Contains(err.Error(), PathNodeConfig) {
			t.Errorf("%q: %v", broken, err)
		}
	}
}

func TestServiceURL(t *testing.T) {
	for address, want := range map[string]string{"10.77.0.1": "http://10.77.0.1", "fd00::1": "http://[fd00::1]"} {
		if got := ServiceURL(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}
