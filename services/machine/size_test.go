package machine

import (
	"testing"

	"pgregory.net/rapid"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"480GB": 480e9, "480 GB": 480e9, "480gb": 480e9, "480G": 480e9, " 480GB ": 480e9, "1.92TB": 1.92e12, "0.5TB": 500e9,
		"64GiB": 64 << 30, "64Gi": 64 << 30, "1.5KiB": 1536, "1kiB": 1024, "1kB": 1000, "512B": 512, "0B": 0, "4PiB": 4 << 50, "1MB": 1e6,
		"9007199254740993B":    9007199254740993, // more digits than a float64 has
		"9223372036854775807B": 1<<63 - 1,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "480", "GB", "-1GB", "480 GB x", "480iB", "1e3GB", "480XB", ".5TB", "1,92TB", "9223372036854775808B", "10000PB", "99999999999999999999B"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}

func TestSizeString(t *testing.T) {
	for size, want := range map[Size]string{
		0: "0B", 512: "512B", 1000: "1kB", 1024: "1KiB", 480e9: "480GB", 1.92e12: "1920GB", 64 << 30: "64GiB", 1e12: "1TB", 16 << 30: "16GiB", 1536: "1536B",
	} {
		if got := size.String(); got != want {
			t.Errorf("%d: %q, want %q", uint64(size), got, want)
		}
	}
	// What a size is written as reads as the same size.
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.SampledFrom([]uint64{1, 1000, 1024, 1e9, 1 << 30, 1e12}).Draw(t, "unit")
		size := Size(rapid.Uint64Range(0, (1<<63-1)/unit).Draw(t, "n") * unit)
		var again Size
		text, err := size.MarshalText()
		if err == nil {
			err = again.UnmarshalText(text)
		}
		if err != nil || again != size {
			t.Errorf("%d is written %q and read as %d, %v", size, text, again, err)
		}
	})
}
