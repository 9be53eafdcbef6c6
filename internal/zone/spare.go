package zone

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
)

// spares is a folder on this machine's disk in which zones are kept that were
// answered while the journal could not be written: one file a zone, in the form
// in which the journal has it. With it, a restart goes on from the serial that
// was answered last and not from the one that the journal knows.
type spares string

// errNoSpares says that there is no such folder.
var errNoSpares = errors.New("no folder takes it meanwhile")

func (s spares) path(zone string) string { return filepath.Join(string(s), url.PathEscape(zone)) }

// load returns what is kept of a zone, nil for nothing.
func (s spares) load(zone string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	content, err := os.ReadFile(s.path(zone))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return content, err
}

// save keeps a zone; a kill leaves the content of before or the new one.
func (s spares) save(zone string, content []byte) (err error) {
	if s == "" {
		return errNoSpares
	}
	if err := os.MkdirAll(string(s), 0o700); err != nil {
		return err
	}
	// No zone's name begins so. One that a kill left is written over.
	temp, err := os.OpenFile(filepath.Join(string(s), "~"+url.PathEscape(zone)), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp.Name()) // the first error is the one to tell
		}
	}()
	_, err = temp.Write(content)
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), s.path(zone)); err != nil {
		return err
	}
	return s.sync()
}

// drop forgets a zone. It may come back after a power cut, which does no harm:
// the journal is then newer.
func (s spares) drop(zone string) error {
	if s == "" {
		return nil
	}
	if err := os.Remove(s.path(zone)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sync makes the folder's entries durable, and the folder's own.
func (s spares) sync() error {
	for _, dir := range []string{string(s), filepath.Dir(string(s))} {
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return fmt.Errorf("syncing %s: %w", dir, err)
		}
	}
	return nil
}
