package setup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rackseed/rackseed/services/durable"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/site"
)

// Source is where the site file that is in force lies.
type Source string

const (
	Nowhere Source = "none"  // there is no valid site file
	Given   Source = "given" // the file that the boot service was started with; on the appliance, the stick's
	Kept    Source = "kept"  // in the data folder: made by setup, or the given one as it last was
)

// Files are where a site file may be. The given one is in force while it is
// valid, and is kept then. While it is missing or has a fault, the kept one
// stays in force: that is what was in force last, whoever wrote it.
type Files struct {
	Given string // ""; none was given
	Kept  string
	// Link names a link with an address, for as long as there is no site file:
	// so that setup can go on in the console.
	Link string
}

// FilesOf are the files of a boot service that was given a site file and keeps
// its data in a folder.
func FilesOf(given, data string) Files {
	return Files{Given: given, Kept: filepath.Join(data, "site.yaml"), Link: filepath.Join(data, "setup-link.json")}
}

// InForce is the site file that counts now.
type InForce struct {
	Source Source
	Text   []byte // as it was written; nil for Nowhere
	Site   machine.Site
	// Problems say, a line each, what is wrong with the given file, or that
	// there is none. With a kept file in force a missing one is no problem.
	Problems []string
	// GivenMissing says that the given file is not there, or says nothing: the
	// stick comes with one that is all comments.
	GivenMissing bool
}

// content is what was read of one file.
type content struct {
	name string
	text []byte
	err  error
}

// Read reads the files, and no more of each than one can be.
func (f Files) Read() InForce {
	return decide(f.contents())
}

func (f Files) contents() (given, kept content) {
	return read(f.Given, filepath.Base(f.Given)), read(f.Kept, "kept site.yaml")
}

// Watch reads the files again and again, and checks them anew only when one
// changed.
type Watch struct {
	Files Files

	given, kept content
	now         InForce
	looked      bool
}

// Look is what is in force now, and whether a file changed since the last look;
// at the first one it did.
func (w *Watch) Look() (now InForce, changed bool) {
	given, kept := w.Files.contents()
	if w.looked && given.same(w.given) && kept.same(w.kept) {
		return w.now, false
	}
	w.given, w.kept, w.now, w.looked = given, kept, decide(given, kept), true
	return w.now, true
}

func (c content) same(other content) bool {
	return bytes.Equal(c.text, other.text) && fmt.Sprint(c.err) == fmt.Sprint(other.err)
}

func read(path, name string) content {
	if path == "" {
		return content{"site file", nil, fs.ErrNotExist}
	}
	text, err := readBounded(path)
	return content{name, text, err}
}

func readBounded(path string) (text []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(io.LimitReader(f, site.MaxBytes+1))
}

// decide says which file is in force.
func decide(given, kept content) InForce {
	s, err := check(given)
	if err == nil {
		return InForce{Source: Given, Text: given.text, Site: s}
	}
	now := InForce{Source: Nowhere, GivenMissing: errors.Is(err, fs.ErrNotExist)}
	if !now.GivenMissing {
		now.Problems = lines(err)
	}
	s, err = check(kept)
	switch {
	case err == nil:
		now.Source, now.Text, now.Site = Kept, kept.text, s
	case !errors.Is(err, fs.ErrNotExist):
		now.Problems = append(now.Problems, lines(err)...)
	case now.GivenMissing:
		now.Problems = []string{given.name + ": there is none, or it says nothing yet: set the site up on the appliance's screen, on a serial port or in the console, or with an editor in the file on the stick's partition RACKSEED"}
	}
	return now
}

func check(c content) (machine.Site, error) {
	switch {
	case errors.Is(c.err, fs.ErrNotExist):
		return machine.Site{}, c.err
	case c.err == nil && blank(c.text):
		return machine.Site{}, fs.ErrNotExist
	case c.err != nil:
		return machine.Site{}, fmt.Errorf("%s: cannot be read: %w", c.name, c.err)
	}
	return Check(c.name, c.text)
}

// blank says whether a file has nothing but comments.
func blank(text []byte) bool {
	for line := range bytes.Lines(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return false
		}
	}
	return true
}

// ErrGiven refuses a site file of setup.
var ErrGiven = errors.New("the site file on the stick's partition RACKSEED is valid, and in force: change it there, or remove it there first, and start the appliance again")

// Keep checks a site file and keeps it, durably: it is in force from then on.
// The error is a *site.Error with all that is wrong with the file, ErrGiven
// while the given one is valid, or why it could not be written.
func (f Files) Keep(text []byte) (machine.Site, error) {
	s, err := Check("site.yaml", text)
	if err != nil {
		return machine.Site{}, err
	}
	if f.Read().Source == Given {
		return machine.Site{}, ErrGiven
	}
	return s, f.write(text)
}

// KeepGiven keeps the given file as it is in force, if it is not kept already.
func (f Files) KeepGiven(text []byte) error {
	if old, err := readBounded(f.Kept); err == nil && string(old) == string(text) {
		return nil
	}
	return f.write(text)
}

func (f Files) write(text []byte) error {
	if err := durable.WriteFile(f.Kept, text, 0o600); err != nil {
		return fmt.Errorf("keeping the site file: %w", err)
	}
	// From here on the site file names the links.
	if err := os.Remove(f.Link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the site file is kept, but the link of setup stays noted: %w", err)
	}
	return nil
}

// KeepLink keeps a link with its address, durably, so that the console can be
// reached while there is no site file.
func (f Files) KeepLink(l machine.SiteLink) error {
	b, err := json.Marshal(machine.SiteLink{MAC: l.MAC, Interface: l.Interface, VLAN: l.VLAN, Address: l.Address, Gateway: l.Gateway})
	if err == nil {
		err = durable.WriteFile(f.Link, append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("keeping the link for setup: %w", err)
	}
	return nil
}

// ReadLink reads the link that KeepLink kept; false if there is none.
func (f Files) ReadLink() (machine.SiteLink, bool, error) {
	b, err := readBounded(f.Link)
	if errors.Is(err, fs.ErrNotExist) {
		return machine.SiteLink{}, false, nil
	}
	var l machine.SiteLink
	if err == nil {
		err = json.Unmarshal(b, &l)
	}
	if err != nil {
		return machine.SiteLink{}, false, fmt.Errorf("the link for setup: %s: %w; set it up anew", f.Link, err)
	}
	return l, true, nil
}
