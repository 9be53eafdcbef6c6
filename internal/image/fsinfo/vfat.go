package fsinfo

import (
	"fmt"
	"io"
	"strings"
)

// vfat is a boot sector that was checked, as far as reading depends on it.
type vfat struct {
	image
	boot        fields
	bits        int   // of an entry: 12, 16 or 32
	sector      int64 // bytes
	cluster     int64 // bytes
	fatAt       int64 // bytes from the beginning, as all below
	fatSize     int64 // of one of them
	fats        int64
	rootAt      int64 // not with 32 bits
	rootSize    int64
	dataAt      int64
	clusters    int64
	size        int64
	rootCluster uint32 // with 32 bits
}

// FAT is where things lie in a vfat file system, in bytes from its beginning.
type FAT struct {
	Bits              int    // of an entry of the table: 12, 16 or 32
	Cluster, Clusters int64  // the size of one, and how many there are
	Table, TableSize  int64  // the first of them
	Root, RootSize    int64  // the root folder, not with 32 bits
	RootCluster       uint32 // where it begins with 32 bits
	Data              int64
}

// ReadFAT reads the boot sector of a vfat file system, for who reads the files in it.
func ReadFAT(r io.ReaderAt, size int64) (FAT, error) {
	v := &vfat{image: image{r, size}, boot: make(fields, 512)}
	if err := v.read(v.boot, 0); err != nil {
		return FAT{}, err
	}
	switch {
	case !v.recognise():
		return FAT{}, fmt.Errorf("there is no vfat: %w", ErrUnsupported)
	case v.size > size:
		return FAT{}, damaged("vfat", "it was cut off: %d bytes of %d are there", size, v.size)
	}
	return FAT{v.bits, v.cluster, v.clusters, v.fatAt, v.fatSize, v.rootAt, v.rootSize, v.rootCluster, v.dataAt}, nil
}

func readVFAT(m image) (Info, error) {
	boot := make(fields, 512)
	if err := m.read(boot, 0); err != nil {
		return Info{}, err
	}
	v := &vfat{image: m, boot: boot}
	if !v.recognise() {
		return Info{}, nil
	}
	info := Info{Type: VFAT, BlockSize: v.cluster, Size: v.size, Features: []string{fmt.Sprintf("fat%d", v.bits)}}
	at := 38
	if v.bits == 32 {
		at = 66
	}
	if boot[at] == 0x29 || boot[at] == 0x28 {
		info.UUID = fmt.Sprintf("%04X-%04X", boot.u32(at+1)>>16, boot.u32(at+1)&0xffff)
	}
	if boot[at] == 0x29 {
		info.Label = strings.TrimRight(boot.text(at+5, 11), " ")
	}
	if err := v.describe(&info); err != nil {
		return info, err
	}
	if info.Label == "NO NAME" {
		info.Label = ""
	}
	return info, nil
}

// recognise reports a boot sector of FAT. There is no sure mark of one, so
// everything in it has to make sense.
func (v *vfat) recognise() bool {
	b := v.boot
	sector, perCluster, reserved, fats := int64(b.u16(11)), int64(b[13]), int64(b.u16(14)), int64(b[16])
	jump := b[0] == 0xEB && b[2] == 0x90 || b[0] == 0xE9 || b[0] == 0xEB && b[1] >= 0x1e
	if !jump || b[510] != 0x55 || b[511] != 0xAA || sector < 512 || sector > 4096 || !powerOfTwo(uint64(sector)) || !powerOfTwo(uint64(perCluster)) ||
		reserved == 0 || fats < 1 || fats > 2 || b[21] != 0xF0 && b[21] < 0xF8 {
		return false
	}
	sectors, fatSectors, rootEntries := int64(b.u16(19)), int64(b.u16(22)), int64(b.u16(17))
	if sectors == 0 {
		sectors = int64(b.u32(32))
	}
	wide := fatSectors == 0
	if wide {
		fatSectors, v.rootCluster = int64(b.u32(36)), b.u32(44)
	}
	v.sector, v.cluster, v.fats = sector, sector*perCluster, fats
	v.fatAt, v.fatSize = reserved*sector, fatSectors*sector
	v.rootAt = v.fatAt + fats*v.fatSize
	v.rootSize = (rootEntries*32 + sector - 1) / sector * sector
	v.dataAt, v.size = v.rootAt+v.rootSize, sectors*sector
	if fatSectors == 0 || v.dataAt >= v.size || wide != (rootEntries == 0) {
		return false
	}
	v.clusters = (v.size - v.dataAt) / v.cluster
	switch {
	case wide:
		v.bits = 32
	case v.clusters < 4085:
		v.bits = 12
	case v.clusters < 65525:
		v.bits = 16
	default:
		return false
	}
	return v.clusters > 0 && (v.clusters+2)*int64(v.bits) <= v.fatSize*8 && v.clusters < 0x0ffffff5 && (!wide || v.rootCluster >= 2)
}

// describe counts the clusters that are in use and looks at the root folder.
func (v *vfat) describe(info *Info) error {
	info.State = Clean
	free := int64(0)
	err := v.entries(func(cluster int64, next uint32) {
		switch {
		case cluster == 1 && v.bits == 32 && next&(1<<26) == 0 || cluster == 1 && v.bits == 16 && next&(1<<14) == 0:
			info.State = Errors
		case cluster == 1 && v.bits == 32 && next&(1<<27) == 0 || cluster == 1 && v.bits == 16 && next&(1<<15) == 0:
			info.State = Unclean
		case cluster >= 2 && next == 0:
			free++
		}
	})
	if err != nil {
		return fmt.Errorf("allocation table of vfat: %w", err)
	}
	dirty := 37
	if v.bits == 32 {
		dirty = 65
	}
	if v.boot[dirty]&1 != 0 && info.State == Clean { // as Linux marks one that is mounted
		info.State = Unclean
	}
	info.Free = free * v.cluster
	info.Used = info.Size - info.Free
	label, empty, err := v.root()
	if err != nil {
		return fmt.Errorf("root folder of vfat: %w", err)
	}
	if label != "" {
		info.Label = label
	}
	info.empty = empty && info.State == Clean
	return nil
}

// entries calls each with the entries of the first table.
func (v *vfat) entries(each func(cluster int64, next uint32)) error {
	const chunk = 96 << 10 // a whole number of entries of each size
	buffer := make(fields, chunk)
	total, cluster := v.clusters+2, int64(0)
	for at := int64(0); cluster < total; at += chunk {
		part := buffer[:min(chunk, v.fatSize-at)]
		if err := v.read(part, v.fatAt+at); err != nil {
			return err
		}
		n := int64(len(part)) * 8 / int64(v.bits)
		for i := int64(0); i < n && cluster < total; i++ {
			each(cluster, entryOf(part, v.bits, int(i)))
			cluster++
		}
	}
	return nil
}

func entryOf(table fields, bits, i int) uint32 {
	switch bits {
	case 12:
		at := i / 2 * 3
		if i%2 == 0 {
			return uint32(table[at]) | uint32(table[at+1])&0x0f<<8
		}
		return uint32(table[at+1])>>4 | uint32(table[at+2])<<4
	case 16:
		return uint32(table.u16(2 * i))
	}
	return table.u32(4*i) & 0x0fffffff
}

// next is the entry of one cluster.
func (v *vfat) next(cluster uint32) (uint32, error) {
	if v.bits != 32 || int64(cluster) >= v.clusters+2 {
		return 0, damaged("vfat", "cluster %d is named and does not exist", cluster)
	}
	entry := make(fields, 4)
	err := v.read(entry, v.fatAt+4*int64(cluster))
	return entry.u32(0) & 0x0fffffff, err
}

// root reads the root folder: the label that is in it, and whether anything else
// is.
func (v *vfat) root() (label string, empty bool, err error) {
	empty = true
	if v.bits != 32 {
		label, empty, _, err = v.folder(v.rootAt, v.rootSize)
		return label, empty, err
	}
	const most = 65536 * 32 // no folder is larger
	read := int64(0)
	for cluster := v.rootCluster; cluster < 0x0ffffff8 && read < most; read += v.cluster {
		if cluster < 2 || int64(cluster) >= v.clusters+2 {
			return label, false, damaged("vfat", "the root folder goes on at cluster %d of %d", cluster, v.clusters)
		}
		found, none, end, err := v.folder(v.dataAt+int64(cluster-2)*v.cluster, v.cluster)
		if label == "" {
			label = found
		}
		empty = empty && none
		if err != nil || end {
			return label, empty, err
		}
		if cluster, err = v.next(cluster); err != nil {
			return label, false, err
		}
	}
	return label, empty, nil
}

// folder reads a piece of a folder; end says that nothing comes after it.
func (v *vfat) folder(at, size int64) (label string, empty, end bool, err error) {
	const volume, longName = 0x08, 0x0f
	empty = true
	entry := make(fields, 32)
	for i := int64(0); i+32 <= size; i += 32 {
		if err := v.read(entry, at+i); err != nil {
			return label, false, false, err
		}
		switch {
		case entry[0] == 0:
			return label, empty, true, nil
		case entry[0] == 0xE5: // deleted
		case entry[11]&volume != 0 && entry[11] != longName:
			label = strings.TrimRight(entry.text(0, 11), " ")
		default:
			empty = false
		}
	}
	return label, empty, false, nil
}
