package fsinfo

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"upkeep/internal/image/btrfstree"
)

func readBtrfs(m image) (Info, error) {
	super := make(fields, btrfstree.SuperSize)
	if err := m.read(super, btrfstree.SuperOffset); err != nil || !btrfstree.IsSuper(super) {
		return Info{}, err
	}
	info := Info{Type: Btrfs, UUID: super.uuid(32), Label: super.text(299, 256)}
	checked, err := btrfstree.ParseSuper(super)
	if err != nil {
		return info, ofTrees(err)
	}
	// The device's own size; total_bytes at 112 is the sum over all devices.
	total, used := super.u64(201+8), super.u64(120)
	if _, fits := product(total, 1); !fits || used > super.u64(112) {
		return info, damaged("superblock of btrfs", "it gives %d bytes, %d of them used", total, used)
	}
	info.BlockSize, info.Size = checked.SectorSize, int64(total)
	// What mirrors take is not in the number of used bytes.
	info.Used = min(int64(min(used, 1<<62)), info.Size)
	info.Free = info.Size - info.Used
	info.State = Clean
	if super.u64(96) != 0 {
		info.State = Journal
	}
	info.Features = named(nil, "incompat", super.u64(188), map[int]string{0: "mixed_backref", 1: "default_subvol", 2: "mixed_groups", 3: "compress_lzo", 4: "compress_zstd",
		5: "big_metadata", 6: "extended_iref", 7: "raid56", 8: "skinny_metadata", 9: "no_holes", 10: "metadata_uuid", 11: "raid1c34", 12: "zoned", 13: "extent_tree_v2",
		14: "raid_stripe_tree", 16: "simple_quota"})
	info.Features = named(info.Features, "ro_compat", super.u64(180), map[int]string{0: "free_space_tree", 1: "free_space_tree_valid", 2: "verity", 3: "block_group_tree"})
	if checked.Devices() != 1 {
		info.Features = append(info.Features, "several_devices")
	}
	info.empty = info.State == Clean && emptyBtrfs(m, checked)
	return info, nil
}

// ofTrees has an error of the package that reads the trees wrap the one that this
// package has for it.
func ofTrees(err error) error {
	if damage := btrfstree.Damage(""); errors.As(err, &damage) {
		return fmt.Errorf("%w: %w", err, ErrDamaged)
	}
	if unsupported := btrfstree.Unsupported(""); errors.As(err, &unsupported) {
		return fmt.Errorf("%w: %w", err, ErrUnsupported)
	}
	return err
}

// emptyBtrfs reports that there is one tree of files, and its root folder alone in it.
func emptyBtrfs(m image, super *btrfstree.Super) bool {
	t, err := btrfstree.Open(m, m.size, super)
	if err != nil {
		return false
	}
	empty := true
	err = t.Walk(t.RootTree(), btrfstree.Key{}, func(key btrfstree.Key, _ btrfstree.Fields) (bool, error) {
		people := key.Kind == btrfstree.RootItem && key.Object >= btrfstree.FirstFree && key.Object < 1<<63
		empty = empty && !people
		return empty, nil
	})
	if err != nil || !empty {
		return false
	}
	root, found, err := t.Root(btrfstree.FSTree)
	if err != nil || !found || root.Level != 0 {
		return false
	}
	err = t.Walk(root, btrfstree.Key{}, func(key btrfstree.Key, _ btrfstree.Fields) (bool, error) {
		empty = empty && key.Object == btrfstree.FirstFree && (key.Kind == btrfstree.InodeItem || key.Kind == btrfstree.InodeRef)
		return empty, nil
	})
	return err == nil && empty
}

func usedOfBtrfs(m image) ([]Extent, error) {
	block := make([]byte, btrfstree.SuperSize)
	if err := m.read(block, btrfstree.SuperOffset); err != nil {
		return nil, err
	}
	super, err := btrfstree.ParseSuper(block)
	if err != nil {
		return nil, ofTrees(err)
	}
	if names := super.Unread(); len(names) > 0 {
		return nil, fmt.Errorf("btrfs with %s: %w", strings.Join(names, ", "), ErrUnsupported)
	}
	t, err := btrfstree.Open(m, m.size, super)
	if err != nil {
		return nil, ofTrees(err)
	}
	var used extents
	used.put(0, 1<<20) // never allocated; boot loaders live there
	for _, mirror := range []int64{64 << 20, 256 << 30} {
		if mirror+btrfstree.SuperSize <= m.size {
			used.put(mirror, btrfstree.SuperSize)
		}
	}
	total, err := used.putBtrfs(t)
	if err != nil {
		return nil, ofTrees(err)
	}
	if counted := super.U64(120); counted != total {
		return nil, damaged("btrfs", "extents of %d bytes are listed, and the superblock has %d", total, counted)
	}
	slices.SortFunc(used, func(a, b Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	return merge(nil, used), nil
}

// putBtrfs appends what the tree of extents has, and returns how many bytes those
// are without their copies.
func (x *extents) putBtrfs(t *btrfstree.Trees) (total uint64, err error) {
	root, found, err := t.Root(btrfstree.ExtentTree)
	if err != nil {
		return 0, err
	}
	if !found {
		return 0, btrfstree.Damage("btrfs: there is no tree of extents")
	}
	err = t.Walk(root, btrfstree.Key{}, func(key btrfstree.Key, _ btrfstree.Fields) (bool, error) {
		length := key.Offset
		switch key.Kind {
		case btrfstree.MetadataItem:
			length = uint64(t.NodeSize)
		case btrfstree.ExtentItem:
		default:
			return true, nil
		}
		places, err := t.Places(key.Object, length)
		for _, at := range places {
			x.put(int64(at), int64(length))
		}
		total += length
		return true, err
	})
	if err != nil {
		return 0, fmt.Errorf("tree of extents: %w", err)
	}
	return total, nil
}
