package declare

import (
	"path/filepath"
	"slices"
	"strings"

	"upkeep"
)

// ResolvePaths makes the relative paths of files that an object names absolute,
// below the folder base: the one that holds the YAML file. The process that
// opens them runs in another folder. Of a command only the program is a path,
// and only when it has a slash; what its arguments mean is not known.
func ResolvePaths(object upkeep.Object, base string) upkeep.Object {
	below := func(path string) string {
		if path == "" || filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(base, path)
	}
	program := func(argv []string) []string {
		if len(argv) == 0 || !strings.Contains(argv[0], "/") {
			return argv
		}
		argv = slices.Clone(argv)
		argv[0] = below(argv[0])
		return argv
	}
	switch object := object.(type) {
	case upkeep.Pool:
		object.Check.CAFile = below(object.Check.CAFile)
		object.Check.KeyFile = below(object.Check.KeyFile)
		object.Check.Command = program(object.Check.Command)
		return object
	case upkeep.Zone:
		object.Publishers = slices.Clone(object.Publishers)
		for i := range object.Publishers {
			p := &object.Publishers[i]
			if p.Agent != "" {
				continue // its paths are those of another machine
			}
			for _, path := range []*string{&p.TSIG, &p.ZoneFile, &p.IncludeDir, &p.Chroot, &p.Key} {
				*path = below(*path)
			}
			p.RNDC, p.Checkzone = program(p.RNDC), program(p.Checkzone)
		}
		return object
	case upkeep.Receiver:
		for _, path := range []*string{&object.PasswordFile, &object.URLFile, &object.SecretFile, &object.TokenFile, &object.CAFile} {
			*path = below(*path)
		}
		object.Command = program(object.Command)
		return object
	}
	return object
}
