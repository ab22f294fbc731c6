package appliance

import (
	"slices"
	"testing"
)

func TestOrderOf(t *testing.T) {
	for line, want := range map[string]order{
		"recover":                           {args: []string{"recover", "--data", dataDir}},
		"rackseed recover":                  {args: []string{"recover", "--data", dataDir}},
		"recover c-1234":                    {args: []string{"recover", "--data", dataDir, "--cluster", "c-1234"}, anew: true},
		"break-glass":                       {args: []string{"break-glass", "--local", socket}},
		"":                                  {},
		"recover c-1234 --yes":              {},
		"recover age-secret-key-1qq":        {args: []string{"recover", "--data", dataDir, "--recovery-key", keyFile}, key: "age-secret-key-1qq"},
		"recover c-1234 AGE-SECRET-KEY-1QQ": {args: []string{"recover", "--data", dataDir, "--recovery-key", keyFile, "--cluster", "c-1234"}, anew: true, key: "AGE-SECRET-KEY-1QQ"},
		"Recovery":                          {},
		"rackseed":                          {},
		"break-glass now":                   {},
	} {
		got, ok := orderOf(line)
		if ok != (want.args != nil) || !slices.Equal(got.args, want.args) || got.anew != want.anew {
			t.Errorf("%q: %+v, %v", line, got, ok)
		}
	}
}
