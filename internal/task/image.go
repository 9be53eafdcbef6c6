package task

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"upkeep"
	"upkeep/internal/lazy"
)

// ImageAt is a file below a root of images that the agent's policy names.
type ImageAt struct {
	Root string `json:"root"`
	Path string `json:"path"` // relative to it
}

// Object is what jobs about the file are about.
func (i ImageAt) Object() string { return "image/" + i.Root + "/" + i.Path }

// ImagePart is an image, or with a Partition that one of it.
type ImagePart struct {
	ImageAt
	Partition int `json:"partition,omitempty"`
}

// ImageFrom is a file that is made of an image, Source, or of a Partition of that. The
// source is only read.
type ImageFrom struct {
	ImageAt
	Source    ImageAt `json:"source"`
	Partition int     `json:"partition,omitempty"`
}

// From is the image that is read.
func (i ImageFrom) From() ImageAt { return i.Source }

// FileSystem is what is asked of a new file system. What is left out is chosen by
// the program that makes it.
type FileSystem struct {
	Type    string `json:"fs,omitempty"`
	Profile string `json:"profile,omitempty"`
	Inodes  int64  `json:"inodes,omitempty"`
	// BlockSize is in bytes.
	BlockSize int64  `json:"block_size,omitempty"`
	Label     string `json:"label,omitempty"`
	UUID      string `json:"uuid,omitempty"`
	// Reserved is the share that only root can fill, in percent.
	Reserved *float64 `json:"reserved,omitempty"`
}

// ImageList asks for the images of a server.
type ImageList struct{}

// ImageCreate makes an image, sparse unless Full, with a file system if Type says
// which.
type ImageCreate struct {
	ImageAt
	Size upkeep.Size `json:"size"`
	Full bool        `json:"full,omitempty"`
	FileSystem
}

// ImageGrow makes an image larger, with its file system. To is the size that it is
// to have and never how much is added: a job may be sent twice.
type ImageGrow struct {
	ImagePart
	To upkeep.Size `json:"to"`
	// FileOnly leaves what is in the file as it is, but for the second copy of a GPT,
	// which is moved to the new end.
	FileOnly bool `json:"file_only,omitempty"`
}

// ImageShrink makes an image smaller, after its file system: to a size, or with Min
// as small as it can be.
type ImageShrink struct {
	ImagePart
	To  upkeep.Size `json:"to,omitempty"`
	Min bool        `json:"min,omitempty"`
}

// ImageMkFS makes a new file system in an image. With Force what is in it may go.
type ImageMkFS struct {
	ImagePart
	FileSystem
	Force bool `json:"force,omitempty"`
}

// ImageCheck looks whether an image's file system is in order, and with Repair
// repairs it.
type ImageCheck struct {
	ImagePart
	Repair bool `json:"repair,omitempty"`
}

// ImageCopy copies the files in an image, Source, into a new image or one that
// exists.
type ImageCopy struct {
	ImageFrom
	// Size, Full and FileSystem are of an image that is made; with no size it is as
	// large as the files need.
	Size upkeep.Size `json:"size,omitempty"`
	Full bool        `json:"full,omitempty"`
	FileSystem
	// Verify compares the copy with its source.
	Verify bool `json:"verify,omitempty"`
	// Merge lets the target have files already, LeaveOut lets what it cannot hold be
	// left out.
	Merge    bool `json:"merge,omitempty"`
	LeaveOut bool `json:"leave_out,omitempty"`
	// Into is the partition of an image that exists which is copied into.
	Into int `json:"into,omitempty"`
}

// ImageClone copies an image whole.
type ImageClone struct {
	ImageFrom
	// NewIDs gives the copy's file system a UUID of its own.
	NewIDs bool `json:"new_ids,omitempty"`
}

// ImagePack packs an image, Source, into a new file.
type ImagePack struct {
	ImageFrom
	// All packs free blocks, too.
	All bool `json:"all,omitempty"`
}

// ImageUnpack unpacks a file that was packed, Source, into a new image.
type ImageUnpack struct {
	ImageFrom
	// As is the kind that the image is to have: what it was when left out.
	As upkeep.ImageKind `json:"as,omitempty"`
}

func (ImageList) Kind() string   { return upkeep.JobImageList }
func (ImageCreate) Kind() string { return upkeep.JobImageCreate }
func (ImageGrow) Kind() string   { return upkeep.JobImageGrow }
func (ImageShrink) Kind() string { return upkeep.JobImageShrink }
func (ImageMkFS) Kind() string   { return upkeep.JobImageMkFS }
func (ImageCheck) Kind() string  { return upkeep.JobImageCheck }
func (ImageCopy) Kind() string   { return upkeep.JobImageCopy }
func (ImageClone) Kind() string  { return upkeep.JobImageClone }
func (ImagePack) Kind() string   { return upkeep.JobImagePack }
func (ImageUnpack) Kind() string { return upkeep.JobImageUnpack }

func (ImageList) Object() string { return "images" }

// MaxImage is the largest image that can be asked for: ext4's limit for a file.
const MaxImage upkeep.Size = 16 << 40

// maxPartition is above the numbers that partitions have.
const maxPartition = 1024

// FileSystems are the types that can be asked for.
var FileSystems = []string{"ext2", "ext3", "ext4", "xfs", "btrfs", "reiserfs", "vfat", "swap"}

// imageName is a short word, of which only the agent knows what it means.
var imageName = lazy.Regexp(`^[a-z0-9-]{1,32}$`)

var imageUUID = lazy.Regexp(`^[0-9a-fA-F]{4}[0-9a-fA-F-]{4,32}$`)

func (b *broken) image(field string, i ImageAt) {
	if !upkeep.ValidObject(i.Root) {
		b.add(field+"root", i.Root, "must be the name of a root of images in the agent's policy")
	}
	if !relative(i.Path) {
		b.add(field+"path", i.Path, "must be a relative path of plain names, without . and .., of at most %d bytes and %d names", maxPath, maxDepth)
	}
}

func (b *broken) part(field string, number int) {
	if number < 0 || number > maxPartition {
		b.add(field, fmt.Sprint(number), "must be the number of a partition, at most %d", maxPartition)
	}
}

func (b *broken) images(i ImageFrom) {
	b.image("", i.ImageAt)
	b.part("partition", i.Partition)
	b.image("source.", i.Source)
	if i.ImageAt == i.Source {
		b.add("source.path", i.Source.Path, "must not be the image that is made of it")
	}
}

func (b *broken) size(field string, size, least upkeep.Size) {
	if size < least || size > MaxImage {
		b.add(field, size.String(), "must be %s to %s", least, MaxImage)
	}
}

func (b *broken) fileSystem(f FileSystem, needed bool) {
	if !slices.Contains(FileSystems, f.Type) && (f.Type != "" || needed) {
		b.add("fs", f.Type, "must be one of %s", strings.Join(FileSystems, ", "))
	}
	if f.Type == "" && !needed && f != (FileSystem{}) {
		b.add("fs", "", "must say which file system the other options are for")
	}
	if f.Profile != "" && !imageName().MatchString(f.Profile) {
		b.add("profile", f.Profile, "must be the name of a profile")
	}
	if f.Inodes < 0 || f.Inodes > 1<<32-1 {
		b.add("inodes", fmt.Sprint(f.Inodes), "must be 1 to %d", uint32(1<<32-1))
	}
	if f.BlockSize != 0 && (f.BlockSize < 512 || f.BlockSize > 65536 || f.BlockSize&(f.BlockSize-1) != 0) {
		b.add("block_size", fmt.Sprint(f.BlockSize), "must be a power of 2 from 512 to 65536")
	}
	if len(f.Label) > 255 || strings.HasPrefix(f.Label, "-") || strings.ContainsFunc(f.Label, func(c rune) bool { return c < 0x20 || c == 0x7f || c == utf8.RuneError }) {
		b.add("label", f.Label, "must be text of at most 255 bytes, without control characters and a dash at its start")
	}
	if f.UUID != "" && !imageUUID().MatchString(f.UUID) {
		b.add("uuid", f.UUID, "must be a UUID")
	}
	if f.Reserved != nil && !(*f.Reserved >= 0 && *f.Reserved <= 50) {
		b.add("reserved", fmt.Sprint(*f.Reserved), "must be 0 to 50 percent")
	}
}

func (ImageList) Validate() []upkeep.FieldError { return nil }

func (t ImageCreate) Validate() []upkeep.FieldError {
	var b broken
	b.image("", t.ImageAt)
	b.size("size", t.Size, 1)
	b.fileSystem(t.FileSystem, false)
	return b
}

func (t ImageGrow) Validate() []upkeep.FieldError {
	var b broken
	b.image("", t.ImageAt)
	b.part("partition", t.Partition)
	b.size("to", t.To, 1)
	return b
}

func (t ImageShrink) Validate() []upkeep.FieldError {
	var b broken
	b.image("", t.ImageAt)
	b.part("partition", t.Partition)
	switch {
	case t.Min && t.To != 0:
		b.add("to", t.To.String(), "cannot be given beside min")
	case !t.Min:
		b.size("to", t.To, 1)
	}
	return b
}

func (t ImageMkFS) Validate() []upkeep.FieldError {
	var b broken
	b.image("", t.ImageAt)
	b.part("partition", t.Partition)
	b.fileSystem(t.FileSystem, true)
	return b
}

func (t ImageCheck) Validate() []upkeep.FieldError {
	var b broken
	b.image("", t.ImageAt)
	b.part("partition", t.Partition)
	return b
}

func (t ImageCopy) Validate() []upkeep.FieldError {
	var b broken
	b.images(t.ImageFrom)
	if t.Size != 0 {
		b.size("size", t.Size, 1)
	}
	b.fileSystem(t.FileSystem, false)
	b.part("into", t.Into)
	return b
}

func (t ImageClone) Validate() []upkeep.FieldError {
	var b broken
	b.images(t.ImageFrom)
	return b
}

func (t ImagePack) Validate() []upkeep.FieldError {
	var b broken
	b.images(t.ImageFrom)
	return b
}

func (t ImageUnpack) Validate() []upkeep.FieldError {
	var b broken
	b.images(t.ImageFrom)
	if t.As != "" && t.As != upkeep.ImageSparse && t.As != upkeep.ImageFull {
		b.add("as", string(t.As), "must be %s or %s", upkeep.ImageSparse, upkeep.ImageFull)
	}
	return b
}
