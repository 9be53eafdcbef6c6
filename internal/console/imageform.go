package console

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"upkeep"
	"upkeep/internal/task"
)

// imageVerb is a kind of work on images that pages offer: its job, and the fields of
// its payload.
type imageVerb struct {
	name, title, kind string
	fields            []imageField
	from              bool // makes a file of the image, which is only read
	packed            bool // is for packed files; the others are for raw ones
}

// imageField is a field of a form that becomes one of a payload.
type imageField struct {
	field
	as string // text, size, number or tick
}

func (v imageVerb) suits(i upkeep.ImageFile) bool {
	if v.packed { // what jobs unpack; qcow2 they do not
		return slices.Contains([]string{"packed", "gzip", "xz", "zstd"}, i.Format)
	}
	return i.Format == "raw"
}

const sizeHint = "Such as 512M or 8G."

var (
	partition = imageField{field{Name: "partition", Label: "Partition", Hint: "Its number, for one of an image that has some."}, "number"}
	newRoot   = imageField{field{Name: "root", Label: "In", Hint: "A root of images, as the policy on the server names it."}, "text"}
	newPath   = imageField{field{Name: "path", Label: "New file", Hint: "Below that root, such as web2.img."}, "text"}
	label     = imageField{field{Name: "label", Label: "Label of the file system"}, "text"}
	profile   = imageField{field{Name: "profile", Label: "Made for", Kind: "choose", Options: []option{{"", "ordinary use", false}, {"small", "little space", false}, {"news", "many small files", false}, {"large", "few large files", false}}}, "text"}
	inodes    = imageField{field{Name: "inodes", Label: "Room for so many files", Hint: "What the file system chooses when empty."}, "number"}
)

// fileSystemField asks for a type of file system, or with none also for none.
func fileSystemField(none string) imageField {
	var all []option
	if none != "" {
		all = append(all, option{"", none, false})
	}
	for _, name := range task.FileSystems {
		all = append(all, option{name, name, false})
	}
	return imageField{field{Name: "fs", Label: "File system", Kind: "choose", Options: all}, "text"}
}

func sizeField(name, label, more string) imageField {
	return imageField{field{Name: name, Label: label, Hint: strings.TrimSpace(sizeHint + " " + more)}, "size"}
}

func tick(name, label string) imageField {
	return imageField{field{Name: name, Label: label, Kind: "tick"}, "tick"}
}

// imageVerbs are in the order in which pages offer them.
var imageVerbs = []imageVerb{
	{name: "create", title: "New image", kind: upkeep.JobImageCreate, fields: []imageField{newRoot, newPath, sizeField("size", "Size", ""), tick("full", "take all of its space at once"),
		fileSystemField("none"), profile, inodes, label}},
	{name: "grow", title: "Grow", kind: upkeep.JobImageGrow, fields: []imageField{sizeField("to", "New size", ""), tick("file_only", "the file alone, and not what is in it"), partition}},
	{name: "shrink", title: "Shrink", kind: upkeep.JobImageShrink, fields: []imageField{sizeField("to", "New size", ""), tick("min", "as small as it can be"), partition}},
	{name: "check", title: "Check", kind: upkeep.JobImageCheck, fields: []imageField{tick("repair", "repair what is wrong"), partition}},
	{name: "copy", title: "Copy the files", kind: upkeep.JobImageCopy, from: true, fields: []imageField{newRoot, newPath, sizeField("size", "Size", "As large as the files need when empty."), fileSystemField("as it is there"), label,
		tick("verify", "compare the copy with the image"), tick("merge", "the other image may have files already"), tick("leave_out", "leave out what it cannot hold"), partition}},
	{name: "clone", title: "Clone", kind: upkeep.JobImageClone, from: true, fields: []imageField{newRoot, newPath, tick("new_ids", "with a UUID of its own"), partition}},
	{name: "pack", title: "Pack", kind: upkeep.JobImagePack, from: true, fields: []imageField{newRoot, newPath, tick("all", "free blocks too"), partition}},
	{name: "unpack", title: "Unpack", kind: upkeep.JobImageUnpack, from: true, packed: true, fields: []imageField{newRoot, newPath,
		{field{Name: "as", Label: "It becomes", Kind: "choose", Options: []option{{"", "what it was", false}, {"sparse", "sparse", false}, {"full", "fully allocated", false}}}, "text"}, partition}},
	{name: "mkfs", title: "New file system", kind: upkeep.JobImageMkFS, fields: []imageField{fileSystemField(""), profile, inodes, label, tick("force", "what is in it now may go"), partition}},
}

// form are the fields, with what was typed.
func (v imageVerb) form(image imageView, typed url.Values) []field {
	var all []field
	for _, f := range v.fields {
		one := f.field
		one.Value, one.On = typed.Get(f.Name), typed.Get(f.Name) != ""
		if one.Kind == "" {
			one.Kind = "text"
		}
		if typed == nil && f.Name == "root" {
			one.Value = image.Root
		}
		if typed == nil && v.name == "mkfs" && f.Name == "fs" {
			one.Value = "ext4"
		}
		one.Options = slices.Clone(one.Options)
		for i := range one.Options {
			one.Options[i].On = one.Options[i].Value == one.Value
		}
		all = append(all, one)
	}
	return all
}

// payload is what the job carries, as JSON.
func (v imageVerb) payload(image imageView, typed url.Values) (json.RawMessage, error) {
	invalid := &upkeep.InvalidError{}
	wrong := func(f imageField, err string) {
		invalid.Fields = append(invalid.Fields, upkeep.FieldError{Field: f.Name, Rule: err})
	}
	made := map[string]any{}
	if about := map[string]any{"root": image.Root, "path": image.ImageFile.Path}; v.from {
		made["source"] = about
	} else if v.name != "create" {
		made = about
	}
	for _, f := range v.fields {
		text := strings.TrimSpace(typed.Get(f.Name))
		if text == "" {
			continue
		}
		switch f.as {
		case "tick":
			made[f.Name] = true
		case "size":
			size, err := upkeep.ParseSize(text)
			if err != nil {
				wrong(f, err.Error())
			}
			made[f.Name] = int64(size)
		case "number":
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				wrong(f, strconv.Quote(upkeep.Printable(text))+" must be a number")
			}
			made[f.Name] = n
		default:
			made[f.Name] = text
		}
	}
	if len(invalid.Fields) > 0 {
		return nil, invalid
	}
	text, err := json.Marshal(made)
	if err == nil {
		_, err = task.Decode(v.kind, text)
	}
	return text, err
}

// plan says what would be done, by what the server last told of the image. How the
// agent goes about it is its own to say, once it has looked.
func (work imageWork) plan(typed url.Values) []string {
	target := typed.Get("root") + "/" + strings.TrimSpace(typed.Get("path"))
	size := func(name string) string {
		n, _ := upkeep.ParseSize(strings.TrimSpace(typed.Get(name))) // it was read before
		return n.String()
	}
	i := work.image
	within := ""
	if i.Type != "" {
		within = ", with its " + i.Type
	}
	switch work.verb.name {
	case "create":
		text := fmt.Sprintf("A file %s of %s is made on %s.", target, size("size"), work.server)
		if fs := typed.Get("fs"); fs != "" {
			text = fmt.Sprintf("A file %s of %s is made on %s, with %s in it.", target, size("size"), work.server, fs)
		}
		if typed.Get("full") != "" {
			return []string{text, "It takes all of that at once."}
		}
		return []string{text, "It takes of its disk what is written to it."}
	case "grow":
		if typed.Get("file_only") != "" {
			within = ", and what is in it stays as it is"
		}
		return []string{fmt.Sprintf("%s of %s becomes %s%s.", i.Name, i.Whole, size("to"), within)}
	case "shrink":
		to := size("to")
		if typed.Get("min") != "" {
			to = "as small as what it holds lets it"
		}
		return []string{fmt.Sprintf("%s of %s becomes %s%s.", i.Name, i.Whole, to, within), "Its files are kept: where they have no room, nothing is done."}
	case "mkfs":
		text := "What is in it keeps this from being done, unless it may go."
		if typed.Get("force") != "" {
			text = "What is in it now is lost."
		}
		return []string{fmt.Sprintf("%s gets a new %s.", i.Name, typed.Get("fs")), text}
	case "check":
		if typed.Get("repair") != "" {
			return []string{fmt.Sprintf("The %s is looked at, and what is wrong in it is repaired.", orElse(i.Type, "file system"))}
		}
		return []string{fmt.Sprintf("The %s is looked at. Nothing is changed.", orElse(i.Type, "file system"))}
	}
	return []string{fmt.Sprintf("%s is read, and %s is made of it.", i.Name, target)}
}

// warnings are what stands in the way, by what the server last told.
func (work imageWork) warnings() []string {
	var all []string
	for _, holder := range work.image.Holders {
		all = append(all, "It is in use: "+holder+". As long as it is, this is refused.")
	}
	if work.image.Trouble {
		all = append(all, "It is "+work.image.State+".")
	}
	return all
}
