package filesystem

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"

	"upkeep"
	"upkeep/internal/image/tool"
)

// renewals are the programs that give a file system another UUID.
var renewals = map[string]tool.Command{
	Ext2:     {Name: "tune2fs", Args: []string{"-U", "random", tool.Image}},
	Ext3:     {Name: "tune2fs", Args: []string{"-U", "random", tool.Image}},
	Ext4:     {Name: "tune2fs", Args: []string{"-U", "random", tool.Image}, Input: "y\n"},
	XFS:      {Name: "xfs_db", Args: []string{"-x", "-f", "-p", "xfs_admin", "-c", "uuid generate", tool.Image}},
	Btrfs:    {Name: "btrfstune", Args: []string{"-f", "-m", tool.Image}},
	ReiserFS: {Name: "reiserfstune", Args: []string{"-f"}},
	VFAT:     {Name: "fatlabel"},
	Swap:     {Name: "swaplabel"},
}

// RenewsUUID is an error where the type's UUID cannot be changed.
func (t Type) RenewsUUID() error {
	c, known := renewals[t.Name]
	if !known {
		return fmt.Errorf("%w: %s has no UUID that can be changed", upkeep.ErrRefused, t.Name)
	}
	_, err := tool.Find(c.Name)
	return err
}

// RenewUUID gives the file system in a file a new UUID. Ext wants to be checked
// before.
func (t Type) RenewUUID(ctx context.Context, file *os.File) error {
	if err := t.RenewsUUID(); err != nil {
		return err
	}
	c := renewals[t.Name]
	c.File = file
	switch t.Name {
	case Ext2, Ext3, Ext4:
		if _, err := (extPrograms{}).preen(ctx, file, nil); err != nil {
			return err
		}
	case ReiserFS:
		c.Args = []string{"-f", "-u", newUUID(), tool.Image}
	case VFAT: // eight digits, which is all that it has
		c.Args = []string{"-i", tool.Image, newUUID()[:8]}
	case Swap:
		c.Args = []string{"-U", newUUID(), tool.Image}
	}
	if err := c.OK(ctx); err != nil {
		return fmt.Errorf("giving %s a new UUID: %w", t.Name, err)
	}
	return nil
}

// newUUID is a random one; RFC 9562, version 4.
func newUUID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails; crypto/rand
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	text := hex.EncodeToString(id[:])
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}
