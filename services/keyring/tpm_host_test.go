//go:build host

package keyring

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
)

// emulator starts a TPM, whose seeds are in the folder.
func emulator(t *testing.T, dir string) TPM {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "tpm")
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		<-ended
	})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		tpm, err := quiet(linuxudstpm.Open(socket)) // which does not connect yet
		if err == nil {
			_, err = tpm2.GetRandom{BytesRequested: 1}.Execute(tpm)
			if err := tpm.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err == nil {
			return TPM{func() (transport.TPMCloser, error) { return quiet(linuxudstpm.Open(socket)) }}
		}
		select {
		case <-tick.C:
		case err := <-ended:
			ended <- err
			t.Fatalf("swtpm: %v: %s", err, said.String())
		case <-t.Context().Done():
			t.Fatal("swtpm never listened")
		}
	}
}

// unopened is a socket's TPM, which is closed after each answer.
type unopened struct{ transport.TPMCloser }

func quiet(tpm transport.TPMCloser, err error) (transport.TPMCloser, error) {
	return unopened{tpm}, err
}

func (u unopened) Close() error {
	if err := u.TPMCloser.Close(); err != nil && !errors.Is(err, linuxudstpm.ErrNotOpen) {
		return err
	}
	return nil
}

// A ring is wrapped by a real TPM's implementation: it is opened again after the TPM
// was restarted, and not by another one.
func TestTPM(t *testing.T) {
	seeds, dir := t.TempDir(), filepath.Join(t.TempDir(), "keyring")
	one := emulator(t, seeds)
	r, err := Open(dir, one, Plaintext{})
	if err != nil {
		t.Fatal(err)
	}
	k := NewKey()
	for range 5 { // nothing is left in the TPM's few slots
		if err := errors.Join(r.Add(k), r.Keep(), r.Add(k)); err != nil || r.Protector() != NameTPM {
			t.Fatalf("%s: %v", r.Protector(), err)
		}
	}
	if r, err := Open(dir, one); err != nil || !r.Has(k.ID) {
		t.Errorf("opened again: %v, %v", err, r.Lost())
	}
	if r, err := Open(dir, emulator(t, t.TempDir())); err != nil || r.Has(k.ID) || r.Lost() == nil || !strings.Contains(r.Lost().Error(), "another machine's TPM") {
		t.Errorf("by another TPM: %v, %v", err, r.Lost())
	}
	// Without a TPM it is neither opened nor written; once there is one again, both.
	gone := true
	late := TPM{func() (transport.TPMCloser, error) {
		if gone {
			return linuxtpm.Open(filepath.Join(dir, "tpmrm0"))
		}
		return one.Open()
	}}
	r, err = Open(dir, late, Plaintext{})
	if err != nil || r.Has(k.ID) || r.Lost() == nil || r.Add(k) == nil || r.Reopen() == nil {
		t.Errorf("without a TPM: %v", err)
	}
	gone = false
	if err := r.Reopen(); err != nil || !r.Has(k.ID) || r.Protector() != NameTPM {
		t.Errorf("it came late: %v", err)
	}
	gone = true
	r, err = Open(t.TempDir(), late, Plaintext{})
	if err := errors.Join(err, r.Add(k), r.Improve()); err != nil || r.Protector() != NamePlaintext {
		t.Errorf("%s, %v", r.Protector(), err)
	}
	gone = false
	if err := r.Improve(); err != nil || r.Protector() != NameTPM {
		t.Errorf("wrapped better: %s, %v", r.Protector(), err)
	}
}

// A replica without devices has its ring wrapped by the TPM that a node's agent lends it:
// also after the agent was started again, and in the folder of the next replica. Where
// there is no TPM nothing is lent.
func TestRelay(t *testing.T) {
	one := emulator(t, t.TempDir())
	none := &Relay{device: func() (transport.TPMCloser, error) { return nil, fs.ErrNotExist }}
	some := func() *Relay { return &Relay{device: one.Open} }
	folder := filepath.Join(t.TempDir(), "replica")
	lent := TPM{func() (transport.TPMCloser, error) { return dialRelay(filepath.Join(folder, relayName)) }}
	ring := func() *Ring {
		t.Helper()
		r, err := Open(filepath.Join(folder, "keyring"), lent, Plaintext{})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	agent := some()
	if err := agent.Listen(t.Context(), folder); err != nil {
		t.Errorf("without a folder: %v", err)
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := none.Listen(t.Context(), folder); err != nil {
		t.Errorf("without a TPM: %v", err)
	}
	r, k := ring(), NewKey()
	if err := errors.Join(r.Add(k), r.Improve()); err != nil || r.Protector() != NamePlaintext {
		t.Fatalf("%s: %v", r.Protector(), err)
	}

	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		for range 2 {
			if err := agent.Listen(ctx, folder); err != nil {
				t.Fatal(err)
			}
		}
		r := ring()
		if err := r.Improve(); err != nil || r.Protector() != NameTPM || !r.Has(k.ID) {
			t.Errorf("lent: %s, %v, %v", r.Protector(), err, r.Lost())
		}
		if other, err := Open(filepath.Join(folder, "keyring"), one); err != nil || !other.Has(k.ID) {
			t.Errorf("by the TPM itself: %v, %v", err, other.Lost())
		}
		cancel()
		agent.Wait()
		if r := ring(); r.Lost() == nil || errors.Is(r.Lost(), fs.ErrNotExist) || r.Add(NewKey()) == nil {
			t.Errorf("the agent ended: %v", r.Lost())
		}
		agent = some()
	}

	if err := errors.Join(agent.Listen(t.Context(), folder), os.Rename(folder, folder+".left"), os.Mkdir(folder, 0o700), agent.Listen(t.Context(), folder)); err != nil {
		t.Fatal(err)
	}
	r = ring()
	if err := r.Add(k); err != nil || r.Protector() != NameTPM {
		t.Errorf("the next replica's: %s, %v", r.Protector(), err)
	}
}
