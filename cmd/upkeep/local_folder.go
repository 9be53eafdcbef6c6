package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// localSites is where root's server "local" has its sites when the web server
// could not reach them in the data folder; a folder for each data folder.
const localSites = "/var/lib/upkeep-local"

// sitesFolder is where the server of this process has homes, logs and generated
// files: in the data folder. An Apache that root starts serves as a user of its
// own, who has to be able to pass each folder on the way. Of those, the data
// folder is ours to open for passing (what is private in it is for its owner
// alone); where it is another one, such as /root, sites are kept elsewhere, with
// a note that says so.
func sitesFolder(data string) (dir, note string, err error) {
	dir = filepath.Join(data, localServer)
	if os.Geteuid() != 0 {
		return dir, "", nil
	}
	info, err := os.Stat(data)
	if err != nil {
		return "", "", err
	}
	if mode := info.Mode().Perm(); mode&0o001 == 0 {
		if err := os.Chmod(data, mode|0o011); err != nil {
			return "", "", fmt.Errorf("letting the web server into the data folder: %w", err)
		}
	}
	for above := filepath.Dir(data); above != "/"; above = filepath.Dir(above) {
		info, err := os.Stat(above)
		if err != nil {
			return "", "", err
		}
		if info.Mode().Perm()&0o001 != 0 {
			continue
		}
		sum := sha256.Sum256([]byte(data))
		elsewhere := filepath.Join(localSites, hex.EncodeToString(sum[:6]))
		note = fmt.Sprintf("sites are in %s: their web server's user may not enter %s", elsewhere, above)
		return elsewhere, note, forgetSites(elsewhere, dir)
	}
	return dir, "", nil
}

// forgetSites removes what was generated for another data folder that was at the
// same place before. Pages stay.
func forgetSites(dir, state string) error {
	if _, err := os.Stat(state); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, folder := range []string{"sites", "pages", "auth"} {
		if err := os.RemoveAll(filepath.Join(dir, folder)); err != nil {
			return err
		}
	}
	return nil
}
