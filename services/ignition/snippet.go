package ignition

import (
	"errors"
	"fmt"
	"path"
	"strings"

	config "github.com/coreos/ignition/v2/config/v3_6"
	"github.com/coreos/ignition/v2/config/v3_6/types"
	vjson "github.com/coreos/vcontext/json"
	vpath "github.com/coreos/vcontext/path"
	"github.com/coreos/vcontext/report"

	"github.com/rackseed/rackseed/services/machine"
)

// MaxSnippet is the most that a profile's Ignition may have, in bytes. The
// whole config is held in memory by the installer.
const MaxSnippet = 1 << 20

// Problem is one thing wrong in a profile's Ignition.
type Problem struct {
	Line, Column int64  // from 1; 0 when the place is not known
	Path         string // "storage.files.0.path", may be empty
	Text         string
}

// ProfileError says what is wrong in a profile's Ignition, all of it at once.
type ProfileError struct {
	Profile  string
	Problems []Problem
}

func (e *ProfileError) Error() string {
	var lines []string
	for _, p := range e.Problems {
		line := fmt.Sprintf("profile %q: ignition", e.Profile)
		if p.Line > 0 {
			line += fmt.Sprintf(":%d:%d", p.Line, p.Column)
		}
		if p.Path != "" {
			line += ": " + p.Path
		}
		lines = append(lines, line+": "+p.Text)
	}
	return strings.Join(lines, "\n")
}

// parseSnippet reads a profile's Ignition (JSON, spec 3.0 to 3.6) as 3.6, and
// returns what is odd in it. Its error is a *ProfileError.
func parseSnippet(p machine.Profile) (types.Config, []Problem, error) {
	if strings.TrimSpace(p.Ignition) == "" {
		return types.Config{Ignition: types.Ignition{Version: types.MaxVersion.String()}}, nil, nil
	}
	if len(p.Ignition) > MaxSnippet {
		return types.Config{}, nil, &ProfileError{p.Name, []Problem{{Text: fmt.Sprintf("it is over %d bytes", MaxSnippet)}}}
	}
	raw := []byte(p.Ignition)
	// The first look is the library's; the report of what it found has places.
	c, found, err := config.ParseCompatibleVersion(raw)
	if err != nil || found.IsFatal() {
		return types.Config{}, nil, profileError(p.Name, found, err)
	}
	own := restrict(c)
	if own.IsFatal() {
		if tree, err := vjson.UnmarshalToContext(raw); err == nil {
			own.Correlate(tree)
		}
		return types.Config{}, nil, profileError(p.Name, own, nil)
	}
	return c, problems(found), nil
}

// problems turns what the library found into ours.
func problems(found report.Report) (list []Problem) {
	for _, entry := range found.Entries {
		line, column := entry.Marker.Start()
		text := entry.Message
		if strings.HasPrefix(text, "unused key ") { // the path ends with it
			text = "unknown key"
		}
		at := strings.TrimPrefix(strings.TrimPrefix(entry.Context.String(), "$"), ".")
		list = append(list, Problem{line, column, at, text})
	}
	return list
}

// profileError is the error of what the library found. A key that the library
// does not know is only a warning there, and most often a slip of the pen: it
// stands beside the error, but does not make one.
func profileError(name string, found report.Report, err error) *ProfileError {
	e := &ProfileError{Profile: name, Problems: problems(found)}
	if len(e.Problems) == 0 {
		text := "expected an Ignition config as JSON of spec 3.0.0 to " + types.MaxVersion.String()
		if err != nil {
			text = err.Error() + ": " + text
		}
		e.Problems = []Problem{{Text: text}}
	}
	return e
}

// Places of a node that Ignition can write to; the rest of the root is
// read-only.
var writable = []string{"/etc", "/var", "/root"}

// Places that are Rackseed's own: a profile that changed them would cut the
// node off, or take another's identity.
var reserved = []string{"/etc/rackseed", "/etc/kubernetes", "/etc/hostname", pathNetwork}

// restrict finds what the library allows and a node does not: the installer
// runs the stages fetch-offline and files only, on a disk that it laid out by
// itself, and nothing comes from the network.
func restrict(c types.Config) (r report.Report) {
	root := vpath.New("json")
	refuse := func(text string, at ...any) { r.AddOnError(root.Append(at...), errors.New(text)) }

	const layout = "the installer lays out the disk itself; remove this"
	for _, part := range []struct {
		what string
		n    int
	}{
		{"disks", len(c.Storage.Disks)}, {"raid", len(c.Storage.Raid)},
		{"filesystems", len(c.Storage.Filesystems)}, {"luks", len(c.Storage.Luks)},
	} {
		if part.n > 0 {
			refuse(layout, "storage", part.what)
		}
	}
	if len(c.KernelArguments.ShouldExist)+len(c.KernelArguments.ShouldNotExist) > 0 {
		refuse("kernel arguments belong in the profile's kernelArguments", "kernelArguments")
	}
	if len(c.Ignition.Config.Merge) > 0 || c.Ignition.Config.Replace.Source != nil {
		refuse("a config of its own cannot be fetched: merge it into this one", "ignition", "config")
	}

	place := func(p string, at ...any) {
		clean := path.Clean(p)
		switch {
		case !beneathAny(clean, writable):
			refuse(fmt.Sprintf("%q is read-only on a node; %s can be written", p, strings.Join(writable, ", ")), at...)
		case beneathAny(clean, reserved):
			refuse(fmt.Sprintf("%q is Rackseed's own", p), at...)
		default:
			for _, own := range reserved {
				// A file or a link where a folder of ours must be.
				if at[1] != "directories" && beneath(own, clean) {
					refuse(fmt.Sprintf("%q is in the way of %s, which is Rackseed's own", p, own), at...)
					break
				}
			}
		}
	}
	local := func(res types.Resource, at ...any) {
		if res.Source != nil && *res.Source != "" && !strings.HasPrefix(strings.ToLower(*res.Source), "data:") {
			refuse("nothing is fetched at install: use a data: URL", append(at, "source")...)
		}
	}
	for i, f := range c.Storage.Files {
		place(f.Path, "storage", "files", i, "path")
		local(f.Contents, "storage", "files", i, "contents")
		for j, a := range f.Append {
			local(a, "storage", "files", i, "append", j)
		}
	}
	for i, d := range c.Storage.Directories {
		place(d.Path, "storage", "directories", i, "path")
	}
	for i, l := range c.Storage.Links {
		place(l.Path, "storage", "links", i, "path")
	}
	for i, ca := range c.Ignition.Security.TLS.CertificateAuthorities {
		local(ca, "ignition", "security", "tls", "certificateAuthorities", i)
	}
	return r
}

func beneathAny(p string, tops []string) bool {
	for _, top := range tops {
		if beneath(p, top) {
			return true
		}
	}
	return false
}

// beneath says whether clean path p is top or in it.
func beneath(p, top string) bool { return p == top || strings.HasPrefix(p, top+"/") }
