package machine

import (
	"regexp"
	"strings"
)

// uuidForm is a UUID's text (RFC 9562 section 4), in lower case.
var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// sharedUUIDs are in the firmware of whole series of boards whose maker did
// not bother. Those of one repeated octet are found by rule.
var sharedUUIDs = map[string]bool{
	"03000200-0400-0500-0006-000700080009": true, // AMI's template, octets in order of value
	"00020003-0004-0005-0006-000700080009": true, // the same, read without swapping
	"12345678-1234-5678-90ab-cddeefaabbcc": true, // Phoenix's template
	"01020304-0506-0708-090a-0b0c0d0e0f10": true,
}

// ParseUUID is the SMBIOS UUID that s writes, in lower case; "" for what is no
// UUID and for those that boards carry in thousands, by which no machine can
// be known.
func ParseUUID(s string) string {
	s = strings.ToLower(strings.TrimSpace(s))
	if !uuidForm.MatchString(s) || sharedUUIDs[s] {
		return ""
	}
	if octets := strings.ReplaceAll(s, "-", ""); octets == strings.Repeat(octets[:2], 16) {
		return ""
	}
	return s
}

// SwapUUID is the UUID as a reader sees it who takes the first three fields in
// the other byte order, or "" for what is no UUID. SMBIOS stores them
// little-endian since version 2.6 (DSP0134 section 7.2.1); older firmware,
// option 97 of some, labels and tools read them big-endian, so that one board
// has two spellings. That two boards have each other's is as unlikely as any
// two equal UUIDs.
func SwapUUID(s string) string {
	s = strings.ToLower(s)
	if !uuidForm.MatchString(s) {
		return ""
	}
	swap := func(field string) string {
		var b strings.Builder
		for n := len(field) - 2; n >= 0; n -= 2 {
			b.WriteString(field[n : n+2])
		}
		return b.String()
	}
	return swap(s[:8]) + "-" + swap(s[9:13]) + "-" + swap(s[14:18]) + s[18:]
}
