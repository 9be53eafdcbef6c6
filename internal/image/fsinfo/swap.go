package fsinfo

import "encoding/binary"

// readSwap finds swap space: its mark ends the first page, and pages have the size
// that the machine had which made it.
func readSwap(m image) (Info, error) {
	for page := int64(4096); page <= 65536; page *= 2 {
		mark := make([]byte, 10)
		if err := m.read(mark, page-10); err != nil {
			return Info{}, err
		}
		asleep := string(mark[:9]) == "S1SUSPEND" || string(mark[:9]) == "S2SUSPEND" // a machine's memory is in it
		if string(mark) != "SWAPSPACE2" && !asleep {
			continue
		}
		header := make(fields, 1536-1024)
		if err := m.read(header, 1024); err != nil {
			return Info{}, err
		}
		return swap(header, page, asleep)
	}
	return Info{}, nil
}

func swap(header fields, page int64, asleep bool) (Info, error) {
	info := Info{Type: Swap, UUID: header.uuid(12), Label: header.text(28, 16), BlockSize: page, State: Clean, empty: !asleep}
	var order binary.ByteOrder = binary.LittleEndian
	if header.be32(0) == 1 {
		order = binary.BigEndian
	}
	version, last, bad := order.Uint32(header), order.Uint32(header[4:]), order.Uint32(header[8:])
	if version != 1 || last == 0 || bad > last {
		return info, damaged("header of swap", "it gives version %d, %d pages and %d bad ones", version, last, bad)
	}
	info.Size = (int64(last) + 1) * page
	info.Free = (int64(last) - int64(bad)) * page
	info.Used = info.Size - info.Free
	if asleep {
		info.State, info.Used, info.Free = Unclean, info.Size, 0
	}
	return info, nil
}
