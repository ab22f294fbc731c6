package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// credentials are what a login leaves behind: whom to ask, how to know that it
// is the right one, and who we are.
type credentials struct {
	Server      string `json:"server"`
	Fingerprint string `json:"fingerprint"` // SHA-256 of the server's certificate, hex
	Token       string `json:"token"`
	// Before is the login that this one took the place of, which only reads and is over
	// soon; logout goes back to it.
	Before *credentials `json:"before,omitempty"`
}

var errNoLogin = errors.New("not logged in: run rackseed setup (the first time) or rackseed login, " +
	"or set RACKSEED_SERVER, RACKSEED_FINGERPRINT and RACKSEED_TOKEN")

// credentialsFile is where a login is kept.
func credentialsFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("where to keep the login: %w", err)
	}
	return filepath.Join(dir, "rackseed", "credentials.json"), nil
}

// load reads the login; errNoLogin if there is none.
func load() (credentials, error) {
	path, err := credentialsFile()
	if err != nil {
		return credentials{}, err
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return credentials{}, errNoLogin
	}
	if err != nil {
		return credentials{}, err
	}
	var c credentials
	if err := json.Unmarshal(b, &c); err != nil {
		return credentials{}, fmt.Errorf("%s: %w; remove it and log in again", path, err)
	}
	return c, nil
}

// save keeps a login, readable by its owner alone.
func save(c credentials) (path string, err error) {
	if path, err = credentialsFile(); err != nil {
		return "", err
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	// Made anew, so that an older file's wider permissions do not stay.
	temporary := path + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.WriteFile(temporary, append(b, '\n'), 0o600); err != nil {
		return "", err
	}
	return path, os.Rename(temporary, path)
}

// forget removes the login, and whom it was with.
func forget() error {
	path, err := credentialsFile()
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// choose lets flags go before the environment, and that before the kept login.
// A server from elsewhere does not get the kept login's token.
func choose(flags, env, kept credentials) credentials {
	c := kept
	for _, over := range []credentials{env, flags} {
		if over.Server != "" && over.Server != c.Server {
			c = credentials{Server: over.Server}
		}
		if over.Fingerprint != "" {
			c.Fingerprint = over.Fingerprint
		}
		if over.Token != "" {
			c.Token = over.Token
		}
	}
	return c
}

// elsewhere lets the kept login be used at another server of which only the address is
// known: another replica of the same cluster has the same certificate, and so the same
// fingerprint. A server with another one is not talked to.
func (c credentials) elsewhere(kept credentials) credentials {
	if c.Fingerprint == "" && c.Token == "" {
		c.Fingerprint, c.Token = kept.Fingerprint, kept.Token
	}
	return c
}

func fromEnv() credentials {
	return credentials{
		Server:      os.Getenv("RACKSEED_SERVER"),
		Fingerprint: os.Getenv("RACKSEED_FINGERPRINT"),
		Token:       os.Getenv("RACKSEED_TOKEN"),
	}
}
