package support

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
)

// Program says which build of the program runs. Builds are bit-identical, so
// that the digest of its file is the surest name of one.
type Program struct {
	Version string `json:"version" doc:"Version of the Go module; (devel) for a build from a checkout."`
	Go      string `json:"go" doc:"Version of Go, and for what it was built."`
	Digest  string `json:"digest" doc:"SHA-256 of the program's file."`
}

// ThisProgram is the one that runs.
var ThisProgram = sync.OnceValue(func() Program {
	p := Program{Version: "unknown", Go: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		p.Version = info.Main.Version
	}
	path, err := os.Executable()
	if err == nil {
		p.Digest, err = digestOfFile(path)
	}
	if err != nil {
		p.Digest = "unknown: " + err.Error()
	}
	return p
})

func digestOfFile(path string) (digest string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("sha256:%x", h.Sum(nil)), nil
}
