package keyring

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// NameTPM is the name of the protector that is this machine's TPM.
const NameTPM = "tpm"

// tpmDevice is the kernel's, with its resource manager.
const tpmDevice = "/dev/tpmrm0"

// TPM wraps by this machine's TPM 2.0: sealed to its storage hierarchy, so that no
// other machine unwraps it. It asks for no state of the boot (PCRs): whoever has the
// whole machine and boots another system on it can unwrap it, too.
type TPM struct {
	Open func() (transport.TPMCloser, error)
}

// Protectors are those that the replica in a folder may have, the best one first. Whether
// there is a TPM shows when it is used: its device may come late, and a node's agent lends
// it to the replica there (Relay).
func Protectors(folder string) []Protector {
	return []Protector{TPM{func() (transport.TPMCloser, error) { return openTPM(folder) }}, Plaintext{}}
}

// Name implements Protector.
func (TPM) Name() string { return NameTPM }

// blob is what only the TPM can load again.
type blob struct {
	Public  []byte `json:"public"`  // TPM2B_PUBLIC
	Private []byte `json:"private"` // TPM2B_PRIVATE
}

// Wrap implements Protector.
func (p TPM) Wrap(secret []byte) (wrapped []byte, err error) {
	err = p.with(func(t transport.TPM, parent *tpm2.CreatePrimaryResponse, session []tpm2.AuthOption) error {
		made, err := tpm2.Create{
			ParentHandle: tpm2.AuthHandle{Handle: parent.ObjectHandle, Name: parent.Name, Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, 16, append(session, tpm2.AESEncryption(128, tpm2.EncryptIn))...)},
			InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
				Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret}),
			}},
			InPublic: tpm2.New2B(tpm2.TPMTPublic{
				Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
				ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: true, NoDA: true},
			}),
		}.Execute(t)
		if err != nil {
			return err
		}
		wrapped, err = json.Marshal(blob{tpm2.Marshal(made.OutPublic), tpm2.Marshal(made.OutPrivate)})
		return err
	})
	return wrapped, err
}

// Unwrap implements Protector.
func (p TPM) Unwrap(wrapped []byte) (secret []byte, err error) {
	var b blob
	if err := json.Unmarshal(wrapped, &b); err != nil {
		return nil, err
	}
	public, err := tpm2.Unmarshal[tpm2.TPM2BPublic](b.Public)
	if err != nil {
		return nil, err
	}
	private, err := tpm2.Unmarshal[tpm2.TPM2BPrivate](b.Private)
	if err != nil {
		return nil, err
	}
	err = p.with(func(t transport.TPM, parent *tpm2.CreatePrimaryResponse, session []tpm2.AuthOption) (err error) {
		loaded, err := tpm2.Load{
			ParentHandle: tpm2.AuthHandle{Handle: parent.ObjectHandle, Name: parent.Name, Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, 16, session...)},
			InPrivate:    *private, InPublic: *public,
		}.Execute(t)
		if err != nil {
			return fmt.Errorf("another machine's TPM wrapped it, or this one was cleared: %w", err)
		}
		defer func() { err = errors.Join(err, flush(t, loaded.ObjectHandle)) }()
		// Encrypted on the wires between the TPM and the processor.
		got, err := tpm2.Unseal{
			ItemHandle: tpm2.AuthHandle{Handle: loaded.ObjectHandle, Name: loaded.Name, Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, 16, append(session, tpm2.AESEncryption(128, tpm2.EncryptOut))...)},
		}.Execute(t)
		if err != nil {
			return err
		}
		secret = got.OutData.Buffer
		return nil
	})
	return secret, err
}

// with runs do with the TPM's storage root key, made from its seed each time, and
// with what a session's key is agreed on by.
func (p TPM) with(do func(t transport.TPM, parent *tpm2.CreatePrimaryResponse, session []tpm2.AuthOption) error) (err error) {
	t, err := p.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	parent, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(t)
	if err != nil {
		return fmt.Errorf("the TPM's storage root key: %w", err)
	}
	defer func() { err = errors.Join(err, flush(t, parent.ObjectHandle)) }()
	public, err := parent.OutPublic.Contents()
	if err != nil {
		return err
	}
	return do(t, parent, []tpm2.AuthOption{tpm2.Salted(parent.ObjectHandle, *public)})
}

func flush(t transport.TPM, h tpm2.TPMHandle) error {
	_, err := tpm2.FlushContext{FlushHandle: h}.Execute(t)
	return err
}
