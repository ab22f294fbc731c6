package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rackseed/rackseed/build/iso"
	"github.com/rackseed/rackseed/build/pins"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/site"
)

const readme = `Rackseed

This stick turns bare machines into a Kubernetes cluster.

1. Describe your site in site.yaml, beside this file, with any text editor. Or
   leave it as it is: the machine then asks, on its screen and serial ports.
2. Boot one machine from the stick. Its screen says where to open the console,
   or, if there is a mistake in site.yaml, on which line and what is expected.
3. Let the other machines boot from the network. They show up in the console.

Boot machines only on a network where you are in charge: the stick answers DHCP
on the links that site.yaml names, and on no other.
`

// iso makes out/rackseed.iso with the site file that SITE names.
func (b *builder) iso() error {
	text, about, err := b.siteFile(os.Getenv("SITE"))
	if err != nil {
		return err
	}
	steps, err := b.graph.targets("iso-base", "tools", "rackseed")
	if err != nil {
		return err
	}
	dirs, err := b.cache.Build(b.ctx, steps...)
	if err != nil {
		return err
	}
	lines := summary(about)
	if path := os.Getenv("SITE"); path != "" {
		warnings, err := validate(b.ctx, filepath.Join(dirs[2], "rackseed"), path)
		if err != nil {
			return err
		}
		for _, w := range warnings {
			if !slices.Contains(lines, w.Text) { // those of the site as a whole are in the summary
				lines = append(lines, w.Warning(filepath.Base(path)))
			}
		}
	}
	out := filepath.Join(b.repo, "out", iso.FileName)
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	var log bytes.Buffer
	err = iso.Personalise(b.ctx, dirs[0], out, iso.Personal{
		Site: text, Readme: []byte(strings.ReplaceAll(readme, "\n", "\r\n")),
		Emulated: about.Emulated || os.Getenv("EMULATED") == "1", Epoch: pins.SourceDateEpoch,
		Run: command(dirs[1]), Log: &log,
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, log.String())
	}
	info, err := os.Stat(out)
	if err != nil {
		return err
	}
	for _, line := range lines {
		fmt.Fprintf(os.Stderr, "  site    %s\n", line)
	}
	fmt.Fprintf(os.Stderr, "  out     %s (%d MiB)\n", out, info.Size()>>20)
	return nil
}

// summary says what the stick does by its site file, which is the zero Site if
// none was given.
func summary(s machine.Site) []string {
	if s.Version == 0 {
		return []string{"none (SITE=site.yaml gives one): the stick serves nothing until it is set up"}
	}
	return site.Summary(s)
}

// siteFile reads and checks the site file; without one it is the commented
// example, which sets nothing up.
func (b *builder) siteFile(path string) (text []byte, s machine.Site, err error) {
	if path == "" {
		example, err := os.ReadFile(filepath.Join(b.repo, "docs/site.example.yaml"))
		if err != nil {
			return nil, s, err
		}
		return template(example), s, nil
	}
	text, err = os.ReadFile(path)
	if err != nil {
		return nil, s, fmt.Errorf("SITE: %w", err)
	}
	if s, err = site.Parse(path, text); err != nil {
		return nil, s, fmt.Errorf("the site file that SITE names:\n%w", err)
	}
	return text, s, nil
}

// validate has the program that will be on the stick check the site file, and
// returns its warnings: it knows what a profile may give its nodes, which the build
// does not.
func validate(ctx context.Context, rackseed, path string) (warnings []site.Problem, err error) {
	cmd := exec.CommandContext(ctx, rackseed, "site", "validate", "--output", "json", path)
	var says bytes.Buffer
	cmd.Stderr = &says
	out, err := cmd.Output()
	var check struct{ Problems, Warnings []site.Problem }
	if e := json.Unmarshal(out, &check); e != nil {
		return nil, fmt.Errorf("SITE=%s: %w: %s", path, errors.Join(err, e), strings.TrimSpace(says.String()))
	}
	if len(check.Problems) > 0 {
		return nil, fmt.Errorf("the site file that SITE names:\n%w", &site.Error{File: path, Problems: check.Problems})
	}
	return check.Warnings, err
}

// template is the example with every line made a comment, so that a stick that
// nobody wrote a site file for gives nobody access and serves no link.
func template(example []byte) []byte {
	var b bytes.Buffer
	b.WriteString("# Nothing is set up until this file describes your site: take away \"#- \" (or the #\n# alone, where no blank stands behind it) where you need a line, and put your own\n# values in.\n\n")
	for line := range strings.Lines(string(example)) {
		if t := strings.TrimSpace(line); t != "" && !strings.HasPrefix(t, "#") {
			line = "#- " + line
		}
		b.WriteString(line)
	}
	return b.Bytes()
}

// verify assembles the ISO once more, beside the cached one, and compares.
func (b *builder) verify() (err error) {
	s, err := b.graph.target("iso-base")
	if err != nil {
		return err
	}
	cached, err := b.cache.Get(b.ctx, s)
	if err != nil {
		return err
	}
	deps, err := b.cache.Build(b.ctx, s.Deps...)
	if err != nil {
		return err
	}
	again, remove, err := b.cache.Scratch("verify")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	var log bytes.Buffer
	if err := s.Make(b.ctx, again, deps, &log); err != nil {
		return fmt.Errorf("verify: %w\n%s", err, log.String())
	}
	if err := same(filepath.Join(cached, iso.FileName), filepath.Join(again, iso.FileName)); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	fmt.Println("verify: assembled twice, the ISO has the same bytes")
	return nil
}

// same says where two files differ; nil if they do not.
func same(a, b string) error {
	var sums [2][]byte
	for i, p := range []string{a, b} {
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		sums[i] = h.Sum(nil)
	}
	if !bytes.Equal(sums[0], sums[1]) {
		return fmt.Errorf("%s has SHA-256 %x, made anew %x: something that is not an input got in", a, sums[0], sums[1])
	}
	return nil
}
