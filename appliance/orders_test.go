package appliance

import (
	"slices"
	"testing"
)

func TestOrderOf(t *testing.T) {
	for line, want := range map[string]order{
		"recover":                           {args: []string{"recover", "--data", dataDir, "--dry-run"}, alone: true},
		"rackseed recover":                  {args: []string{"recover", "--data", dataDir, "--dry-run"}, alone: true},
		"recover c-1234":                    {args: []string{"recover", "--data", dataDir, "--cluster", "c-1234"}, alone: true},
		"break-glass":                       {args: []string{"break-glass", "--local", socket}},
		"":                                  {},
		"recover c-1234 --yes":              {then: recoverUsage},
		"recover c-1234 AGE-SECRET-KEY2QQ":  {then: recoverUsage},
		"recover age-secret-key-1qq":        {args: []string{"recover", "--data", dataDir, "--recovery-key", keyFile, "--dry-run"}, alone: true, key: "age-secret-key-1qq"},
		"recover c-1234 AGE-SECRET-KEY-1QQ": {args: []string{"recover", "--data", dataDir, "--recovery-key", keyFile, "--cluster", "c-1234"}, alone: true, key: "AGE-SECRET-KEY-1QQ"},
		"Recovery":                          {},
		"rackseed":                          {},
		"break-glass now":                   {then: breakGlassUsage},
	} {
		got, ok := orderOf(line, "")
		if ok != (want.args != nil || want.then != "") || !slices.Equal(got.args, want.args) || got.alone != want.alone || got.key != want.key || want.then != "" && got.then != want.then {
			t.Errorf("%q: %+v, %v", line, got, ok)
		}
	}
	if got, _ := orderOf("recover c-1234", backupFile); !slices.Equal(got.args, []string{"recover", "--data", dataDir, "--from", backupFile, "--cluster", "c-1234"}) {
		t.Errorf("with a backup on the stick: %+v", got)
	}
}
