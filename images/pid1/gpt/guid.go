package gpt

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
)

// GUID in the order in which it is written down. On disk its first three
// fields are little-endian (UEFI 2.10, appendix A).
type GUID [16]byte

// Partition types used or recognised by Rackseed.
var (
	TypeBIOSBoot  = MustGUID("21686148-6449-6e6f-744e-656564454649")
	TypeESP       = MustGUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
	TypeRootAMD64 = MustGUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")
	TypeLinux     = MustGUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
	TypeBasicData = MustGUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
)

// NewGUID makes a random one (RFC 9562 §5.4).
func NewGUID() GUID {
	var g GUID
	rand.Read(g[:]) // never fails (crypto/rand)
	g[6] = g[6]&0x0f | 0x40
	g[8] = g[8]&0x3f | 0x80
	return g
}

// ParseGUID reads xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx in either case.
func ParseGUID(s string) (GUID, error) {
	var g GUID
	bad := fmt.Errorf("GUID %q: expected as 4f68bce3-e8cd-4db1-96e7-fbcaf984b709", s)
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return g, bad
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(raw) != 16 {
		return g, bad
	}
	return GUID(raw), nil
}

// MustGUID is for constants of the program.
func MustGUID(s string) GUID {
	g, err := ParseGUID(s)
	if err != nil {
		panic(err)
	}
	return g
}

// String is the lower-case form, as the kernel's PARTUUID.
func (g GUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", g[:4], g[4:6], g[6:8], g[8:10], g[10:])
}

// Disk returns the sixteen bytes as they stand on a disk and in an EFI device
// path. It is its own inverse.
func (g GUID) Disk() [16]byte {
	return [16]byte{g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]}
}
