package iso

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Personal is what differs between two sticks of the same build.
type Personal struct {
	Site     []byte // site.yaml
	Readme   []byte // README.txt
	Emulated bool   // boot with machine.EmulatedArguments
	Epoch    int64
	Run      Command
	Log      io.Writer
}

// Personalise writes the image of base, a folder made by Base, with the site
// file to out. out appears complete or not at all.
func Personalise(ctx context.Context, base, out string, p Personal) (err error) {
	b, err := os.ReadFile(filepath.Join(base, layoutName))
	if err != nil {
		return fmt.Errorf("ISO: %w", err)
	}
	var l Layout
	if err := json.Unmarshal(b, &l); err != nil {
		return fmt.Errorf("ISO: %s: %w", layoutName, err)
	}
	site, err := siteImage(ctx, p)
	if err != nil {
		return fmt.Errorf("ISO: site partition: %w", err)
	}
	if int64(len(site)) != l.SiteSize {
		return fmt.Errorf("ISO: site partition: made %d bytes, the image has room for %d", len(site), l.SiteSize)
	}
	env, err := envBlock(l.UUID, p.Emulated)
	if err != nil {
		return fmt.Errorf("ISO: %w", err)
	}
	// A name of its own: two builds may write the same image at the same time.
	f, err := os.CreateTemp(filepath.Dir(out), "."+filepath.Base(out)+".*")
	if err != nil {
		return fmt.Errorf("ISO: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(copyFile(filepath.Join(base, FileName), f), f.Chmod(0o644)); err != nil {
		return errors.Join(fmt.Errorf("ISO: %w", err), f.Close())
	}
	_, err1 := f.WriteAt(site, l.SiteOffset)
	_, err2 := f.WriteAt(env, l.EnvOffset)
	if err := errors.Join(err1, err2, f.Close()); err != nil {
		return fmt.Errorf("ISO: %w", err)
	}
	return os.Rename(f.Name(), out)
}

// siteImage is the FAT with the site file and a word to who finds it.
func siteImage(ctx context.Context, p Personal) ([]byte, error) {
	work, err := os.MkdirTemp("", "rackseed-site-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	site, readme, img := filepath.Join(work, "site.yaml"), filepath.Join(work, "README.txt"), filepath.Join(work, "site.img")
	if err := errors.Join(os.WriteFile(site, p.Site, 0o644), os.WriteFile(readme, p.Readme, 0o644)); err != nil {
		return nil, err
	}
	m := maker{Spec: Spec{Run: p.Run, Log: p.Log, Epoch: p.Epoch}, work: work}
	if err := m.fat(ctx, img, Label, siteSerial, siteMiB*1024, []fatFile{{"site.yaml", site}, {"README.txt", readme}}); err != nil {
		return nil, err
	}
	return os.ReadFile(img)
}

// copyFile copies by reflink or in the kernel where the file system can.
func copyFile(from string, to *os.File) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	_, err = io.Copy(to, src)
	return err
}
