package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"upkeep"
	"upkeep/internal/image/filesystem"
	"upkeep/internal/image/fsinfo"
	"upkeep/internal/image/loop"
	"upkeep/internal/image/partition"
	"upkeep/internal/image/shadow"
)

// identities are what tells a copy of an image from the image.
type identities struct {
	kind upkeep.ImageKind
	// disk is how large the image is whose table is to be renewed; 0 for one without.
	disk    int64
	systems []identified
	// kept are the numbers of partitions that hold nothing that is known here.
	kept []int
}

// identified is a file system, in a partition or alone in the image.
type identified struct {
	part partition.Partition
	typ  filesystem.Type
}

// identities finds what of an image has to be renewed, and refuses one of which that
// cannot be said.
func (t *target) identities() (identities, error) {
	ids := identities{kind: t.kind}
	if t.part.Number == 0 && t.info.Type == fsinfo.None {
		table, err := partition.Read(t.file, t.size)
		if !errors.Is(err, partition.ErrNone) {
			if err != nil {
				return ids, fmt.Errorf("%w: reading the partitions of %s: %w", upkeep.ErrRefused, t.path, err)
			}
			ids.disk = t.size
			return ids, ids.add(t, table)
		}
	}
	if err := errors.Join(t.needFS(), t.needReadable()); err != nil {
		return ids, err
	}
	// What is copied of a partition becomes a file of its own.
	ids.systems = []identified{{partition.Partition{Length: t.part.Length}, t.typ}}
	return ids, t.typ.RenewsUUID()
}

// add adds what is in the partitions of a disk.
func (ids *identities) add(t *target, table partition.Table) error {
	for _, p := range table.Partitions {
		if p.Container {
			continue
		}
		info, err := fsinfo.Read(io.NewSectionReader(t.file, p.Offset, p.Length), p.Length)
		switch {
		case err != nil:
			return fmt.Errorf("%w: partition %d of %s would keep its identifier: %w", upkeep.ErrRefused, p.Number, t.path, err)
		case info.Type == fsinfo.None:
			ids.kept = append(ids.kept, p.Number)
			continue
		case info.Size > p.Length:
			return fmt.Errorf("%w: partition %d of %s would keep its identifier: its %s was cut off", upkeep.ErrRefused, p.Number, t.path, info.Type)
		}
		typ, err := filesystem.Find(info.Type)
		if err == nil {
			err = typ.RenewsUUID()
		}
		if err != nil {
			return fmt.Errorf("partition %d of %s: %w", p.Number, t.path, err)
		}
		ids.systems = append(ids.systems, identified{p, typ})
	}
	return nil
}

func (ids identities) plan(plan *Plan) {
	if ids.disk > 0 {
		plan.step(0, "give its table and its partitions new identifiers")
	}
	for _, i := range ids.systems {
		plan.step(0, "give its %s a new UUID", i.name())
	}
}

func (i identified) name() string {
	if i.part.Number == 0 {
		return i.typ.Name
	}
	return fmt.Sprintf("%s in partition %d", i.typ.Name, i.part.Number)
}

// renew renews them in a copy that nobody else has, which is to have the name dst.
func (ids identities) renew(ctx context.Context, tell *teller, dst string, file *os.File) error {
	if ids.disk > 0 {
		tell.begin("giving its partitions new identifiers")
		if err := partition.Renew(file, ids.disk); err != nil {
			return err
		}
	}
	for _, i := range ids.systems {
		tell.begin("giving its %s a new UUID", i.name())
		if err := i.renew(ctx, tell, dst, file); err != nil {
			return err
		}
	}
	for _, number := range ids.kept {
		tell.note("partition %d holds nothing that is known here: what is in it was left as it is", number)
	}
	if len(ids.systems) > 0 {
		tell.note("what in the copy names the old identifiers, such as its fstab and its boot loader, does so still")
	}
	if ids.disk == 0 {
		return nil
	}
	return shadow.Allocate(file, ids.disk, ids.kind) // pieces that were put back have holes
}

// renew works on a device where it can have one, and else on a file of the partition's
// own that is put back: programs know of no partitions.
func (i identified) renew(ctx context.Context, tell *teller, dst string, file *os.File) error {
	if i.part.Number == 0 {
		return i.typ.RenewUUID(ctx, file)
	}
	device, err := loop.Attach(file, loop.Options{Offset: i.part.Offset, Size: i.part.Length})
	if err == nil {
		return errors.Join(i.typ.RenewUUID(ctx, device.File), device.Detach())
	}
	t := &target{file: file, part: i.part}
	return t.apart(ctx, tell, dst, func(piece *os.File) error {
		if err := i.typ.RenewUUID(ctx, piece); err != nil {
			return err
		}
		if err := shadow.Clear(file, i.part.Offset, i.part.Length); err != nil {
			return err
		}
		return shadow.CopyPiece(ctx, file, i.part.Offset, piece, 0, i.part.Length, tell.progress)
	})
}
