package webserver

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// manifest is what is known of the sites on this server beyond their files. It
// can be lost: then each site is asked anew whether it answers.
type manifest struct {
	Sites map[string]*entry `json:"sites"`
	// Piped is true while one process takes the logs of all sites.
	Piped bool `json:"piped,omitempty"`
}

// entry is one site.
type entry struct {
	Generation int64 `json:"generation"`
	// Account is whose it is; empty for one from before this was kept.
	Account string   `json:"account,omitempty"`
	Names   []string `json:"names"`
	// Files are sums of contents, by path as package vhost has it.
	Files map[string]string `json:"files"`
	// Proven is true when the site has answered with exactly these files.
	Proven bool `json:"proven"`
	// Key is what the files were made from: of the site, and of all else.
	Key string `json:"key,omitempty"`
	// Astray is why the site is not served as it was applied last, where that
	// happened after its job was done, or can be fixed by nothing but time: whoever
	// declared it has to be told.
	Astray string `json:"astray,omitempty"`
	// InForce is the generation that an astray site answers with; 0 for none.
	InForce int64 `json:"in_force,omitempty"`
}

func sumOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func manifestFile(state string) string { return filepath.Join(state, "sites.json") }

// loadManifest reads the manifest; an unreadable one is as good as none.
func loadManifest(state string) (*manifest, error) {
	m := &manifest{Sites: map[string]*entry{}}
	text, err := os.ReadFile(manifestFile(state))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, m); err != nil {
		return &manifest{Sites: map[string]*entry{}}, nil
	}
	for site, e := range m.Sites {
		if e == nil {
			delete(m.Sites, site)
		}
	}
	return m, nil
}

func (m *manifest) save(state string) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	file := manifestFile(state)
	temp, err := stage(file, text, 0o600, -1)
	if err == nil {
		err = os.Rename(temp, file)
	}
	if err == nil {
		err = syncDir(state)
	}
	if err != nil {
		return fmt.Errorf("keeping what is known of sites: %w", err)
	}
	return nil
}

// paths are those of all sites' files.
func (m *manifest) paths() map[string]bool {
	all := make(map[string]bool, 2*len(m.Sites))
	for _, e := range m.Sites {
		for path := range e.Files {
			all[path] = true
		}
	}
	return all
}

// owners says which site each name belongs to, without those of some sites.
func (m *manifest) owners(without func(site string) bool) map[string]string {
	owners := make(map[string]string, 2*len(m.Sites))
	for site, e := range m.Sites {
		if without(site) {
			continue
		}
		for _, name := range e.Names {
			owners[name] = site
		}
	}
	return owners
}

// files are the paths of a site's files, sorted.
func (e *entry) paths() []string {
	if e == nil {
		return nil
	}
	var paths []string
	for p := range e.Files {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	return paths
}
