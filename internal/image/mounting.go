package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"upkeep"
	"upkeep/internal/image/chroot"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/hold"
	"upkeep/internal/image/mount"
	"upkeep/internal/image/pack"
	"upkeep/internal/image/shadow"
)

// MountOptions say how the host's kernel gets an image.
type MountOptions struct {
	// ReadOnly changes no byte, not even to replay a journal.
	ReadOnly bool
	// Untrusted is an image that may mean harm: it is refused.
	Untrusted bool
	// Network takes one on a network file system.
	Network bool
	// Partition is the number of the one to mount; 0 is an image without partitions.
	Partition int
}

// Mounting is an image that was mounted at a folder.
type Mounting struct {
	File     string   `json:"file"`
	Folder   string   `json:"folder"`
	Device   string   `json:"device"`
	Type     string   `json:"type"`
	ReadOnly bool     `json:"read_only"`
	Warnings []string `json:"warnings,omitempty"`
}

// mountable is an image that is held, and may be mounted.
type mountable struct {
	*target
	device   string // see [hold.UnpackedName]; empty for one that is not packed
	warnings []string
}

// Mount mounts an image at a folder, where it stays when this process has ended. The
// locks on the image stay as long: QEMU and other upkeeps are refused.
func Mount(path, folder string, o MountOptions) (Mounting, error) {
	folder, err := mountFolder(folder)
	if err != nil {
		return Mounting{}, err
	}
	i, err := takeToMount(path, o)
	if err != nil {
		return Mounting{}, err
	}
	defer i.file.Close() // the device has the file too, and its locks
	m, err := mount.Open(i.file, mount.Options{Type: i.info.Type, Offset: i.part.Offset, Size: i.part.Length, ReadOnly: o.ReadOnly, DirectIO: !o.ReadOnly, Name: i.device})
	if err != nil {
		return Mounting{}, err
	}
	if err := m.At(folder); err != nil {
		return Mounting{}, errors.Join(err, m.Close())
	}
	done := Mounting{File: i.path, Folder: folder, Device: m.Device(), Type: i.info.Type, ReadOnly: o.ReadOnly, Warnings: i.warnings}
	return done, m.Leave()
}

// mountFolder is the real path of a folder to mount at.
func mountFolder(folder string) (string, error) {
	info, err := os.Stat(folder)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", &upkeep.HintError{Err: fmt.Errorf("%w: there is no folder %s", upkeep.ErrNotFound, folder), Hint: "mkdir " + folder}
	case err != nil:
		return "", fmt.Errorf("looking at the folder: %w", err)
	case !info.IsDir():
		return "", fmt.Errorf("%w: %s is no folder", upkeep.ErrRefused, folder)
	}
	real, err := filepath.EvalSymlinks(folder)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return "", fmt.Errorf("looking for the folder: %w", err)
	}
	return real, nil
}

// Chroot runs a command inside an image, and returns its status.
func Chroot(ctx context.Context, path string, o MountOptions, c chroot.Command) (status int, err error) {
	i, err := takeToMount(path, o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, i.file.Close()) }()
	m, err := mount.Open(i.file, mount.Options{Type: i.info.Type, Offset: i.part.Offset, Size: i.part.Length, Setuid: true, DirectIO: true})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	for _, warning := range i.warnings {
		fmt.Fprintln(c.Stderr, "warning:", upkeep.Printable(warning))
	}
	c.Root = m.Mount()
	return c.Run(ctx)
}

// takeToMount holds an image that the kernel is to mount, and refuses it where that
// would not end well.
func takeToMount(path string, o MountOptions) (*mountable, error) {
	if err := o.mayMount(path); err != nil {
		return nil, err
	}
	packed, err := packedToMount(path, o)
	if err != nil {
		return nil, err
	}
	var t *target
	device := ""
	if packed != nil {
		if device, err = hold.UnpackedName(packed.file); err == nil {
			t, err = packed.unpack(o)
		}
		err = errors.Join(err, packed.file.Close())
	} else {
		t, err = openTarget(path, opening{write: !o.ReadOnly, network: o.Network, partition: o.Partition})
	}
	if err != nil {
		return nil, err
	}
	i := &mountable{target: t, device: device}
	if err := i.allowed(o); err != nil {
		return nil, errors.Join(err, t.file.Close())
	}
	return i, nil
}

// mayMount refuses what is never given to the kernel.
func (o MountOptions) mayMount(path string) error {
	if o.Untrusted {
		return &upkeep.HintError{
			Err: fmt.Errorf("%w: %s is not trusted, and the host's kernel would have to read its file system: a crafted one can take the kernel over",
				upkeep.ErrRefused, path),
			Hint: "what mounts nothing: upkeep image info, check, ls, cat, pack; or run it as a virtual machine",
		}
	}
	if os.Geteuid() != 0 {
		return &upkeep.HintError{Err: fmt.Errorf("%w: mounting an image needs root", upkeep.ErrRefused), Hint: "run it as root"}
	}
	return nil
}

// packedImage is an image that upkeep packed, which is to be mounted.
type packedImage struct {
	*pack.Image
	path string // with no symbolic link at its end
	file *os.File
}

// packedToMount opens an image that upkeep packed. Of a raw one it is nil.
func packedToMount(path string, o MountOptions) (*packedImage, error) {
	real, err := realPath(path)
	if err != nil {
		return nil, err
	}
	in, err := hold.Open(real, false)
	if err != nil {
		return nil, err
	}
	p := &packedImage{path: real, file: in}
	raw, err := p.open(path, o)
	if err == nil && !raw {
		return p, nil
	}
	return nil, errors.Join(err, in.Close())
}

func (p *packedImage) open(path string, o MountOptions) (raw bool, err error) {
	info, err := p.file.Stat()
	if err != nil {
		return false, fmt.Errorf("looking at %s: %w", path, err)
	}
	format, err := pack.FormatOf(p.file, info.Size())
	switch {
	case err != nil:
		return false, err
	case format == pack.Raw:
		return true, nil
	case format != pack.Packed:
		return false, upkeep.WithHint(fmt.Errorf("%w: %s is %s", upkeep.ErrRefused, path, format.File()), "upkeep image unpack "+path+" OUT.img")
	case !o.ReadOnly:
		return false, upkeep.WithHint(fmt.Errorf("%w: %s is packed, and nothing can be written into it", upkeep.ErrRefused, path), "--ro mounts it to be read; or upkeep image unpack "+path+" OUT.img")
	}
	if p.Image, err = pack.Open(p.file, info.Size()); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return false, room(p.path, p.Manifest.DataSize())
}

// unpack unpacks it into a file that has no name: the device that is mounted keeps it,
// and it goes with that.
func (p *packedImage) unpack(o MountOptions) (*target, error) {
	file, err := shadow.Scratch(p.path)
	if err != nil {
		return nil, err
	}
	t := &target{path: p.path, file: file}
	if err := errors.Join(unpackInto(file, p.Image), t.look(o.Partition)); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return t, nil
}

// unpackInto writes what an image holds into an empty file; each piece is held against
// its SHA-256 when it is read.
func unpackInto(file *os.File, image *pack.Image) error {
	if err := file.Truncate(image.Size()); err != nil {
		return fmt.Errorf("making room for the unpacked image: %w", err)
	}
	buffer := make([]byte, image.Manifest.Chunk)
	for _, r := range image.Manifest.Data {
		if _, err := io.CopyBuffer(io.NewOffsetWriter(file, r.Offset), io.NewSectionReader(image, r.Offset, r.Length), buffer); err != nil {
			return fmt.Errorf("unpacking it to mount it: %w", err)
		}
	}
	return nil
}

// allowed refuses an image that is not in a state to be mounted.
func (i *mountable) allowed(o MountOptions) (err error) {
	if i.path, err = filepath.Abs(i.path); err != nil {
		return fmt.Errorf("looking for the image: %w", err)
	}
	if err := unfinished(i.path); err != nil && !o.ReadOnly {
		return err
	}
	if err := errors.Join(i.needFS(), i.needReadable()); err != nil {
		return err
	}
	return i.warn(o)
}

// warn collects what is to be known before the image is used.
func (i *mountable) warn(o MountOptions) error {
	room, err := mount.RoomFor(i.file)
	if err != nil {
		return err
	}
	if room.Short() && !o.ReadOnly {
		i.warnings = append(i.warnings, fmt.Sprintf(
			"%s is sparse and can come to want %s more of its host, which has %s free: when that is used up, writes into the image fail and its file system is damaged",
			i.path, upkeep.Size(room.Wants).About(), upkeep.Size(room.Free).About()))
	}
	switch {
	case i.info.State == fsinfo.Errors:
		i.warnings = append(i.warnings, "its file system has met errors: upkeep image check "+i.path)
	case o.ReadOnly && i.info.State == fsinfo.Journal:
		i.warnings = append(i.warnings, "changes wait in its journal and are not seen, since nothing is written")
	}
	return nil
}
