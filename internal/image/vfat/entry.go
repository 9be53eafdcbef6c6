package vfat

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"strings"
	"time"
	"unicode/utf16"
)

const (
	entrySize = 32
	maxFolder = 65536 * entrySize // bytes: the most that the format allows

	readOnly = 0x01
	volume   = 0x08
	isFolder = 0x10
	longName = 0x0f

	lowerBase = 0x08
	lowerEnd  = 0x10
)

// node is a file or a folder.
type node struct {
	fs      *FS
	name    string
	cluster uint32 // the first; 0 of the root folder of FAT12 and FAT16
	size    int64  // 0 of a folder
	bits    byte
	changed time.Time
	root    bool
}

func (n *node) isFolder() bool { return n.bits&isFolder != 0 }

func (f *FS) root() *node {
	// It has no entry, and so no time: the first that there is.
	return &node{fs: f, name: ".", cluster: f.RootCluster, bits: isFolder, root: true, changed: stamp(1<<5|1, 0)}
}

// content is that of a file, or the entries of a folder.
func (n *node) content() (*content, error) {
	c := &content{fs: n.fs}
	var err error
	switch {
	case n.root && n.fs.Bits != 32:
		c.spans = []span{{0, n.fs.Root, n.fs.RootSize}}
	case n.isFolder():
		c.spans, err = n.fs.spans(n.cluster, maxFolder, true)
	default:
		c.spans, err = n.fs.spans(n.cluster, n.size, false)
	}
	return c, err
}

// entries are what is in a folder. Those that nothing could open are left out: with a
// slash in their names, and the second of two names that are the same.
func (n *node) entries() ([]*node, error) {
	c, err := n.content()
	if err != nil {
		return nil, err
	}
	var found []*node
	var long longEntry
	seen := map[string]bool{}
	raw := make([]byte, entrySize)
	for all := bufio.NewReaderSize(io.NewSectionReader(c, 0, maxFolder), pieceSize); ; {
		if _, err := io.ReadFull(all, raw); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || err == nil && raw[0] == 0 {
			return found, nil
		} else if err != nil {
			return nil, err
		}
		switch {
		case raw[0] == 0xE5: // deleted
			long = longEntry{}
		case raw[11]&0x3f == longName:
			long.add(raw)
		case raw[11]&volume != 0: // the label
			long = longEntry{}
		default:
			one := n.fs.entry(raw, long)
			long = longEntry{}
			if one.name == "." || one.name == ".." || one.name == "" || strings.ContainsAny(one.name, "/\x00") || seen[folded(one.name)] {
				continue
			}
			seen[folded(one.name)] = true
			found = append(found, one)
		}
	}
}

func folded(name string) string { return strings.ToLower(name) }

// entry is the file that an entry of a folder is of.
func (f *FS) entry(raw []byte, long longEntry) *node {
	n := &node{fs: f, bits: raw[11], cluster: uint32(binary.LittleEndian.Uint16(raw[26:]))}
	if f.Bits == 32 {
		n.cluster |= uint32(binary.LittleEndian.Uint16(raw[20:])) << 16
	}
	if !n.isFolder() {
		n.size = int64(binary.LittleEndian.Uint32(raw[28:]))
	}
	n.changed = stamp(binary.LittleEndian.Uint16(raw[24:]), binary.LittleEndian.Uint16(raw[22:]))
	if n.name = long.text(raw[:11]); n.name == "" {
		n.name = shortName(raw)
	}
	return n
}

// stamp is a date and a time of day, in two seconds. The format knows no zones, so that
// it is shown as it was written.
func stamp(date, clock uint16) time.Time {
	return time.Date(1980+int(date>>9), time.Month(date>>5&15), int(date&31), int(clock>>11), int(clock>>5&63), int(clock&31)*2, 0, time.UTC)
}

// upper are the characters from 0x80 on of code page 437, which short names are in
// unless somebody said otherwise when they were written, which is kept nowhere.
var upper = []rune("ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u00a0")

// shortName is the name of eight characters and three in an entry.
func shortName(raw []byte) string {
	text := func(b []byte, lower bool) string {
		var out strings.Builder
		for i, c := range b {
			if i == 0 && c == 0x05 && &b[0] == &raw[0] {
				c = 0xE5 // which would say that it is deleted
			}
			if c >= 0x80 {
				out.WriteRune(upper[c-0x80])
			} else {
				out.WriteByte(c)
			}
		}
		s := strings.TrimRight(out.String(), " ")
		if lower {
			s = strings.ToLower(s)
		}
		return s
	}
	base, end := text(raw[:8], raw[12]&lowerBase != 0), text(raw[8:11], raw[12]&lowerEnd != 0)
	if end == "" {
		return base
	}
	return base + "." + end
}

// longEntry collects the pieces of a long name, which stand before its entry, the last
// piece first.
type longEntry struct {
	pieces [][]uint16
	left   byte // pieces that are yet to come
	sum    byte
}

func (l *longEntry) add(raw []byte) {
	const first, most = 0x40, 20
	order := raw[0]
	switch {
	case order&first != 0 && order&^first >= 1 && order&^first <= most:
		*l = longEntry{left: order &^ first, sum: raw[13]}
	case l.left == 0 || order != l.left || raw[13] != l.sum:
		*l = longEntry{}
		return
	}
	if l.left == 0 {
		return
	}
	l.left--
	piece := make([]uint16, 0, 13)
	for _, r := range [][2]int{{1, 11}, {14, 26}, {28, 32}} {
		for at := r[0]; at < r[1]; at += 2 {
			piece = append(piece, binary.LittleEndian.Uint16(raw[at:]))
		}
	}
	l.pieces = append(l.pieces, piece)
}

// text is the long name, if it is whole and belongs to the short one.
func (l *longEntry) text(short []byte) string {
	if len(l.pieces) == 0 || l.left != 0 {
		return ""
	}
	sum := byte(0)
	for _, c := range short {
		sum = sum>>1 | sum<<7
		sum += c
	}
	if sum != l.sum {
		return ""
	}
	var all []uint16
	for i := len(l.pieces) - 1; i >= 0; i-- {
		all = append(all, l.pieces[i]...)
	}
	for i, c := range all {
		if c == 0 {
			all = all[:i]
			break
		}
	}
	return string(utf16.Decode(all))
}

// mode is what Linux shows of a file when nothing is said of it.
func (n *node) mode() fs.FileMode {
	mode := fs.FileMode(0o755)
	if n.bits&readOnly != 0 && !n.root {
		mode = 0o555
	}
	if n.isFolder() {
		return mode | fs.ModeDir
	}
	return mode
}
