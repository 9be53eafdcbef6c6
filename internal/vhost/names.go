package vhost

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"strings"
)

// maxPlain is the longest site name that is a file name as it is: with what
// stands around it, a name of 253 bytes would be longer than file systems take.
const maxPlain = 180

// shortName is the name of a site as part of a file name: itself, or its
// beginning and a hash after a tilde, which no host name has.
func shortName(site string) string {
	if len(site) <= maxPlain {
		return site
	}
	sum := sha256.Sum256([]byte(site))
	return site[:maxPlain-40] + "~" + hex.EncodeToString(sum[:16])
}

// The order of files is the order in which Apache looks for a name, and the
// first that has it answers. So exact names come before all wildcards, and
// wildcards of more labels before those of fewer: *.eu.example.test before
// *.example.test, whoever owns which.

func exactFile(site string) string { return FolderSites + "/50-" + shortName(site) + ".conf" }

func wildcardFile(site string) string {
	return fmt.Sprintf("%s/90-%03d-%s.conf", FolderSites, 999-strings.Count(site, ".")-1, shortName(site))
}

// Files are the paths of all files with fixed names that a site may have, and
// Folders those of the folders that are its own.
func Files(site string) []string {
	return []string{exactFile(site), wildcardFile(site), poolFile(site)}
}

// OwnFile reports whether a name in the include folder is one of those that upkeep
// gives to files.
func OwnFile(name string) bool {
	return strings.HasPrefix(name, "50-") || strings.HasPrefix(name, "90-") || FolderSites+"/"+name == defaultFile
}

// Folders are beside [Files].
func Folders(site string) []string {
	return []string{FolderPages + "/" + shortName(site), FolderAuth + "/" + shortName(site)}
}

func poolFile(site string) string { return FolderFPM + "/" + shortName(site) + ".conf" }

// Rights are the mode that a file of a path has, and whether the group of the web
// server reads it: what its [File] says, for those who have the path alone.
func Rights(path string) (mode fs.FileMode, group bool) {
	switch folder, _, _ := strings.Cut(path, "/"); folder {
	case FolderPages:
		return 0o644, false
	case FolderAuth:
		return 0o640, true
	}
	return 0o600, false
}

const defaultFile = FolderSites + "/000-default.conf"

// socketName is the name of the socket of a site's php-fpm pool. The path of a
// socket has at most 107 bytes.
func socketName(site string) string {
	if len(site) <= 40 {
		return site + ".sock"
	}
	sum := sha256.Sum256([]byte(site))
	return hex.EncodeToString(sum[:16]) + ".sock"
}
