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
	oldName, oldText := form(old)
	newName, newText := form(new)
	return string(diff.Diff(oldName, upkeep.HideHashes(oldText), newName, upkeep.HideHashes(newText)))
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
