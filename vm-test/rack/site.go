package rack

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/rackseed/rackseed/services/machine"
)

// ServiceAddress is the boot service's address in the virtual rack.
const ServiceAddress = "10.77.0.1"

// siteFile describes the room, as an operator would write it.
func siteFile(c Config) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `# The virtual rack of "make run".
version: 1
name: virtual rack
serviceAddress: %s
`, ServiceAddress)
	if !c.Host.KVM {
		b.WriteString("emulated: true\n")
		// GRUB fetches at a tenth of iPXE's speed in an emulated machine.
		if !strings.Contains(c.Site, "netboot:") {
			b.WriteString("netboot: {uefi: ipxe}\n")
		}
	}
	fmt.Fprintf(&b, `links:
  - mac: %s
    address: 10.77.0.2/24
    dhcp:
      from: 10.77.0.100
      to: 10.77.0.199
  - mac: %s
    address: 10.0.2.15/24
cluster:
  extraSANs: [127.0.0.1, localhost]
`, applianceMAC, managementMAC)
	if c.OperatorToken != "" {
		fmt.Fprintf(&b, "operators:\n  - name: make-run\n    tokenSHA256: %x\n", sha256.Sum256([]byte(c.OperatorToken)))
	}
	if c.Approve && c.Machines > 0 {
		b.WriteString("machines:\n")
		for i := 1; i <= c.Machines; i++ {
			role := machine.RoleControlPlane
			if i > c.controlPlanes() {
				role = machine.RoleWorker
			}
			fmt.Fprintf(&b, "  - mac: %s\n    name: node-%d\n    profile: %s\n    approve: true\n", MachineMAC(i), i, role)
		}
	}
	if c.Approve && c.LastNode {
		fmt.Fprintf(&b, "  - mac: %s\n    name: last\n    profile: %s\n", applianceMAC, machine.RoleWorker)
	}
	if !c.Approve { // nobody is listed, and all are ours
		b.WriteString("discovery:\n  always: true\n")
	}
	b.WriteString(c.Site)
	return []byte(b.String())
}
