package webserver

import (
	"crypto/rand"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// makerOf stands for all that files of sites are made from beside what is wanted of
// these. How logs are taken is in no site's file.
func makerOf(o Options) string {
	layout := o.Layout
	layout.Piped = false
	text, err := json.Marshal(layout)
	if err != nil {
		return "-" + rand.Text() // like no other: nothing is taken for unchanged
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%T\n%s", thisProgram(), o.Server.Renderer(), text))
	return "-" + hex.EncodeToString(sum[:8])
}

// thisProgram tells one build of this program from another: a new one may make other
// files from the same. One without the mark of its build is like no other.
func thisProgram() string {
	program, err := elf.Open("/proc/self/exe")
	if err != nil {
		return rand.Text()
	}
	defer func() { _ = program.Close() }() // nothing was written
	note := program.Section(".note.go.buildid")
	if note == nil {
		return rand.Text()
	}
	id, err := note.Data()
	if err != nil || len(id) < 20 {
		return rand.Text()
	}
	return string(id)
}

// key is that of an entry; "" stays "".
func (a *Applier) key(wanted string) string {
	if wanted == "" {
		return ""
	}
	return wanted + a.maker
}
