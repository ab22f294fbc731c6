package cli

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// The README's table has every command that rackseed help has, and no other.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## Using it\n")
	if section, _, _ = strings.Cut(section, "\n## "); !ok || section == "" {
		t.Fatal("README.md has no section Using it")
	}
	var told []string
	code := regexp.MustCompile("`([a-z][a-z-]*(?: [a-z][a-z-]*)?)[^`]*`")
	for line := range strings.Lines(section) {
		cells := strings.Split(line, " | ")
		if !strings.HasPrefix(line, "| `") || len(cells) < 2 {
			continue
		}
		family := ""
		for _, m := range code.FindAllStringSubmatch(cells[0], -1) {
			words := strings.Fields(m[1])
			if len(words) > 1 {
				family = words[0]
			} else if family != "" { // as `discovery open`, `close`
				words = []string{family, words[0]}
			}
			told = append(told, strings.Join(words, " "))
		}
	}

	root := &cobra.Command{Use: "rackseed"}
	Add(root, nil)
	AddLocal(root, nil, "")
	root.InitDefaultCompletionCmd()
	var have []string
	for _, c := range root.Commands() {
		if !c.HasSubCommands() {
			have = append(have, c.Name())
		}
		for _, sub := range c.Commands() {
			have = append(have, c.Name()+" "+sub.Name())
		}
	}
	slices.Sort(told)
	slices.Sort(have)
	if !slices.Equal(told, have) {
		t.Errorf("README.md tells of the commands\n  %s\nand there are\n  %s", strings.Join(told, ", "), strings.Join(have, ", "))
	}
}
