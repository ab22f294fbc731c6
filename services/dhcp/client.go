package dhcp

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/rackseed/rackseed/services/machine"
)

// Options that the library knows by number only.
const (
	optionUserClass  = dhcpv4.GenericOptionCode(77)  // RFC 3004; iPXE sends bare text
	optionClientUUID = dhcpv4.GenericOptionCode(97)  // RFC 4578 section 2.3
	optionIPXE       = dhcpv4.GenericOptionCode(175) // iPXE's own, encapsulated
)

// noArch is the architecture of a client that names none.
const noArch = iana.Arch(0xffff)

// client is who sent a request, as far as the answer depends on it.
type client struct {
	mac      machine.MAC
	uuid     string // lower case; "" when unknown or junk
	swapped  string // the same octets read in network order, as some firmware sends them
	id       string // option 61, hex
	hostname string
	arch     iana.Arch // option 93 (RFC 4578 section 2.1)
	pxe      bool      // firmware or iPXE, that wants a boot file
	ipxe     bool
	http     bool // firmware that boots by HTTP (UEFI 2.5 section 24.7)
	ours     bool // a program of Rackseed's
}

// boots says whether the client netboots.
func (c client) boots() bool { return c.pxe || c.http }

// readClient reads who sent req. It fails for what is no Ethernet client.
func readClient(req *dhcpv4.DHCPv4) (client, error) {
	hw := req.ClientHWAddr
	if req.HWType != iana.HWTypeEthernet || len(hw) != 6 {
		return client{}, fmt.Errorf("hardware type %d with an address of %d bytes is not Ethernet", req.HWType, len(hw))
	}
	// The lowest bit of the first byte marks a group; a group is no client.
	if hw[0]&1 == 1 || string(hw) == "\x00\x00\x00\x00\x00\x00" {
		return client{}, fmt.Errorf("hardware address %s is no client's", hw)
	}
	c := client{
		mac:      machine.MAC(hw.String()),
		id:       hex.EncodeToString(clip(req.Options.Get(dhcpv4.OptionClientIdentifier), 255)),
		hostname: hostname(req.Options.Get(dhcpv4.OptionHostName)),
		arch:     noArch,
	}
	c.uuid, c.swapped = clientUUID(req.Options.Get(optionClientUUID))
	if b := req.Options.Get(dhcpv4.OptionClientSystemArchitectureType); len(b) >= 2 {
		c.arch = iana.Arch(binary.BigEndian.Uint16(b))
	}
	c.ipxe = strings.Contains(string(req.Options.Get(optionUserClass)), "iPXE") || req.Options.Has(optionIPXE)
	class := string(req.Options.Get(dhcpv4.OptionClassIdentifier))
	c.pxe = c.ipxe || strings.HasPrefix(class, "PXEClient")
	c.http = !c.pxe && strings.HasPrefix(class, "HTTPClient")
	// A machine's installer may ask on another port than its firmware did.
	c.ours = strings.HasPrefix(class, "rackseed-")
	return c, nil
}

// what describes the client for people.
func (c client) what() string {
	arch := map[iana.Arch]string{
		iana.INTEL_X86PC: "BIOS", iana.EFI_X86_64: "UEFI x64", iana.EFI_BC: "UEFI x64", iana.EFI_X86_64_HTTP: "UEFI x64",
		iana.EFI_IA32: "UEFI x86", iana.EFI_ARM64: "UEFI arm64", noArch: "no architecture named",
	}[c.arch]
	if arch == "" {
		arch = fmt.Sprintf("architecture %d", uint16(c.arch))
	}
	switch {
	case c.ipxe:
		return arch + ", iPXE"
	case c.http:
		return arch + ", HTTP boot"
	case c.pxe:
		return arch + ", PXE"
	}
	return "not PXE"
}

// bios says whether the client's firmware is a BIOS, which names no architecture
// or 0.
func (c client) bios() bool { return c.arch == iana.INTEL_X86PC || c.arch == noArch }

// uefi64 says whether the client is UEFI on x86-64, by any of its numbers.
func (c client) uefi64() bool {
	return c.arch == iana.EFI_X86_64 || c.arch == iana.EFI_BC || c.arch == iana.EFI_X86_64_HTTP
}

// bootFile is what the client loads next, or "" with the reason.
func (c client) bootFile(service netip.Addr, loader machine.UEFILoader) (file, reason string) {
	switch {
	case c.ipxe:
		return "http://" + service.String() + "/boot.ipxe", ""
	case c.uefi64():
		file = "shimx64.efi"
		if loader == machine.LoaderIPXE {
			file = "snponly.efi"
		}
		if c.http {
			file = "http://" + service.String() + "/uefi/" + file
		}
		return file, ""
	case c.arch == iana.INTEL_X86PC && !c.http:
		return "undionly.kpxe", ""
	}
	return "", "there is no boot file for " + c.what()
}

// clientUUID decodes option 97: a type byte (0) and sixteen bytes in SMBIOS
// order, the first three fields little-endian (DSP0134 section 7.2.1; RFC 4578
// section 2.3 says EFI's, which is the same). swapped is what the bytes mean in
// network order (RFC 9562 section 4), which some firmware sends. "" for anything
// else and for junk (machine.ParseUUID).
func clientUUID(b []byte) (uuid, swapped string) {
	if len(b) != 17 || b[0] != 0 {
		return "", ""
	}
	u := b[1:]
	read := func(order binary.ByteOrder) string {
		return machine.ParseUUID(fmt.Sprintf("%08x-%04x-%04x-%x-%x", order.Uint32(u), order.Uint16(u[4:]), order.Uint16(u[6:]), u[8:10], u[10:]))
	}
	uuid, swapped = read(binary.LittleEndian), read(binary.BigEndian)
	if uuid == "" || swapped == "" { // junk in one order is junk
		return "", ""
	}
	return uuid, swapped
}

// hostname takes a client's name only if it is one that a host may have.
func hostname(b []byte) string {
	if len(b) == 0 || len(b) > 63 {
		return ""
	}
	for _, c := range b {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.') {
			return ""
		}
	}
	return string(b)
}

func clip(b []byte, n int) []byte { return b[:min(len(b), n)] }

// toAddr is the IPv4 address of a packet's field or option; invalid for none
// and for 0.0.0.0.
func toAddr(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip.To4())
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}
