package image

import (
	"context"
	"errors"
	"fmt"
	"os"

	"upkeep"
	"upkeep/internal/image/partition"
	"upkeep/internal/image/shadow"
)

// without makes the second file of an image but for the partition that is worked on,
// which is a hole in it.
func (s second) without(ctx context.Context, t *teller) (*shadow.Shadow, error) {
	next, err := shadow.New(s.path)
	if err != nil {
		return nil, err
	}
	end := s.part.End()
	err = shadow.Allocate(next.File, s.size, upkeep.ImageSparse)
	if err == nil {
		err = shadow.CopyPiece(ctx, next.File, 0, s.file, 0, s.part.Offset, t.progress)
	}
	if err == nil {
		err = shadow.CopyPiece(ctx, next.File, end, s.file, end, s.size-end, t.progress)
	}
	if err != nil {
		return nil, errors.Join(err, next.Close())
	}
	return next, nil
}

// pieceKind is the kind of the file that is worked on: a partition gets its blocks when
// it is put into an image that is full.
func (s second) pieceKind() upkeep.ImageKind {
	if s.part.Number != 0 {
		return upkeep.ImageSparse
	}
	return s.kind
}

// insert has the file system of a partition changed in a file of its own, and puts
// that into the second file, whose partition gets its size.
func (s second) insert(ctx context.Context, t *teller, next *shadow.Shadow, piece *os.File, change func(file *os.File) error) error {
	if err := change(piece); err != nil {
		return err
	}
	t.begin("putting partition %d into its image", s.part.Number)
	stat, err := piece.Stat()
	if err != nil {
		return fmt.Errorf("looking at the changed partition: %w", err)
	}
	length := stat.Size()
	if err := s.resize(next.File, length); err != nil {
		return err
	}
	// A copy of the partition table may have been where it reaches to now.
	if err := shadow.Clear(next.File, s.part.Offset, length); err != nil {
		return err
	}
	return shadow.CopyPiece(ctx, next.File, s.part.Offset, piece, 0, length, t.progress)
}

// resize gives the second file its size and its partition the length of what is put
// into it.
func (s second) resize(next *os.File, length int64) error {
	to := s.to
	if to == 0 {
		table, err := partition.Read(next, s.size)
		if err != nil {
			return err
		}
		if to, _, err = table.Around(s.part.Number, length); err != nil {
			return err
		}
		to = min(to, s.size)
	}
	if to > s.size {
		if err := next.Truncate(to); err != nil {
			return fmt.Errorf("giving the second file its size: %w", err)
		}
	}
	if to != s.size || length != s.part.Length {
		if _, err := partition.Resize(next, max(to, s.size), to, s.part.Number, length); err != nil {
			return err
		}
	}
	if to < s.size {
		if err := next.Truncate(to); err != nil {
			return fmt.Errorf("giving the second file its size: %w", err)
		}
	}
	return nil
}
