package declare

import (
	"bytes"

	"github.com/rogpeppe/go-internal/diff"

	"upkeep"
)

// Diff is the difference between the YAML forms of two objects as a unified
// diff, "" when they are the same. Either may be nil: the object did not exist,
// or is gone.
func Diff(old, new upkeep.Object) string {
	oldName, oldText := form(hidden(old))
	newName, newText := form(hidden(new))
	return string(diff.Diff(oldName, upkeep.HideHashes(oldText), newName, upkeep.HideHashes(newText)))
}

// hidden is an object without the values of its environment, which are passwords
// of databases more often than not.
func hidden(object upkeep.Object) upkeep.Object {
	site, is := object.(upkeep.Site)
	if !is || len(site.Environment) == 0 {
		return object
	}
	shown := make(map[string]string, len(site.Environment))
	for name, value := range site.Environment {
		shown[name] = upkeep.HiddenHash(value)
	}
	site.Environment = shown
	return site
}

// form is the name and the YAML form of an object that may be nil.
func form(object upkeep.Object) (string, []byte) {
	if object == nil {
		return "/dev/null", nil
	}
	var text bytes.Buffer
	if err := Write(&text, object); err != nil { // writing to memory; an object always has a form
		return "/dev/null", []byte(err.Error() + "\n")
	}
	return object.ObjectKind() + "/" + object.ObjectName(), text.Bytes()
}
