package webserver

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many links a path is followed over, as the kernel does it.
const maxLinks = 40

// followed is the stamp of the regular file that a link leads to, where nobody but
// root, or who runs this, decides what that is: each folder and each link on the way is
// theirs and writable by nobody else, and so is the file. Of what is looked at nothing
// can be changed by others between now and when the web server reads it. What is above
// the folder that the link is in is the policy's.
func followed(link string) (stamp, bool) {
	folder := filepath.Dir(link)
	target, err := os.Readlink(link)
	if err != nil || !trusted(stampOf(folder)) || !ours(stampOf(link)) {
		return stamp{}, false
	}
	rest, at := steps(target), "/"
	if !strings.HasPrefix(target, "/") {
		rest = append(steps(folder), rest...)
	}
	for links := 1; len(rest) > 0; {
		if !trusted(stampOf(at)) {
			return stamp{}, false
		}
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." {
			continue
		}
		path := filepath.Join(at, name) // ".." leads to the folder above, as at has no links in it
		switch s := stampOf(path); s.mode & unix.S_IFMT {
		case unix.S_IFDIR:
			at = path
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if links++; err != nil || links > maxLinks || !ours(s) {
				return stamp{}, false
			}
			if strings.HasPrefix(target, "/") {
				at = "/"
			}
			rest = append(steps(target), rest...)
		case unix.S_IFREG:
			s.path = link
			return s, len(rest) == 0 && trusted(s)
		default:
			return stamp{}, false
		}
	}
	return stamp{}, false
}

func steps(path string) []string { return strings.Split(strings.Trim(path, "/"), "/") }

// ours reports whether something is root's, or of who runs this.
func ours(s stamp) bool {
	return s.inode != 0 && (s.uid == 0 || int(s.uid) == os.Geteuid())
}

// trusted reports whether nobody else can change it.
func trusted(s stamp) bool { return ours(s) && s.mode&0o022 == 0 }
