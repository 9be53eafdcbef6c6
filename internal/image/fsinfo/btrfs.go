package fsinfo

import (
	"bytes"
	"crypto/sha256"
)

const (
	btrfsSuperOffset = 64 << 10
	btrfsSuperSize   = 4096

	btrfsCRC32C = 0
	btrfsXXHash = 1
	btrfsSHA256 = 2
	btrfsBLAKE2 = 3
)

// btrfs is a superblock that was checked, as far as reading depends on it.
type btrfs struct {
	image
	super    fields
	nodeSize int64
	sector   int64
}

func readBtrfs(m image) (Info, error) {
	super := make(fields, btrfsSuperSize)
	if err := m.read(super, btrfsSuperOffset); err != nil || !bytes.Equal(super[64:72], []byte("_BHRfS_M")) {
		return Info{}, err
	}
	b := &btrfs{image: m, super: super}
	info := Info{Type: Btrfs, UUID: super.uuid(32), Label: super.text(299, 256)}
	if err := b.check(); err != nil {
		return info, err
	}
	// The device's own size; total_bytes at 112 is the sum over all devices.
	total, used := super.u64(201+8), super.u64(120)
	if _, fits := product(total, 1); !fits || used > super.u64(112) {
		return info, damaged("superblock of btrfs", "it gives %d bytes, %d of them used", total, used)
	}
	info.BlockSize, info.Size = b.sector, int64(total)
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
	if super.u64(136) != 1 {
		info.Features = append(info.Features, "several_devices")
	}
	info.empty = info.State == Clean && b.empty()
	return info, nil
}

func (b *btrfs) check() error {
	s := b.super
	wrong := func(format string, args ...any) error { return damaged("superblock of btrfs", format, args...) }
	if err := checkBtrfs(s, s.u16(196)); err != "" {
		return wrong("%s", err)
	}
	b.sector, b.nodeSize = int64(s.u32(144)), int64(s.u32(148))
	switch {
	case s.u64(48) != btrfsSuperOffset:
		return wrong("it says that it lies at %d", s.u64(48))
	case b.sector < 512 || b.sector > 65536 || !powerOfTwo(uint64(b.sector)):
		return wrong("it gives sectors of %d bytes", b.sector)
	case b.nodeSize < b.sector || b.nodeSize > 65536 || !powerOfTwo(uint64(b.nodeSize)):
		return wrong("it gives nodes of %d bytes", b.nodeSize)
	}
	return nil
}

// checkBtrfs checks the checksum that begins a block, and says what is wrong with
// it. Those of two kinds are not checked: nothing here can compute them.
func checkBtrfs(block fields, kind uint16) string {
	switch kind {
	case btrfsCRC32C:
		if crc32c(block[32:]) != block.u32(0) {
			return "its checksum is not that of what is in it"
		}
	case btrfsSHA256:
		if sha256.Sum256(block[32:]) != [32]byte(block[:32]) {
			return "its checksum is not that of what is in it"
		}
	case btrfsXXHash, btrfsBLAKE2:
	default:
		return "its kind of checksum is not known"
	}
	return ""
}
