package tree

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Difference is one attribute of one entry that two trees do not have alike.
type Difference struct {
	Path string `json:"path"` // as [Escape] writes it
	What string `json:"what"` // "entry" where only one has it
	Was  string `json:"was"`
	Is   string `json:"is"`
}

func (d Difference) String() string {
	return fmt.Sprintf("%s: %s was %s and is %s", d.Path, d.What, orNone(d.Was), orNone(d.Is))
}

// OnlyMade reports whether it is an entry that the source does not have.
func (d Difference) OnlyMade() bool { return d.What == "entry" && d.Was == "" }

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// Compare lists what a copy has otherwise than its source. Holes and allocated
// blocks are alike when they are to a block of either file system. An empty
// lost+found that only the copy has is its file system's own.
func Compare(source, made *Manifest) []Difference {
	c := comparison{block: max(source.Block, made.Block)}
	a, b := source.Entries, made.Entries
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Path < b[0].Path:
			c.add(a[0].Path, "entry", string(a[0].Type), "")
			a = a[1:]
		case len(a) == 0 || b[0].Path < a[0].Path:
			empty := len(b) == 1 || !strings.HasPrefix(b[1].Path, lostFound+"/")
			if b[0].Path != lostFound || b[0].Type != 'd' || !empty {
				c.add(b[0].Path, "entry", "", string(b[0].Type))
			}
			b = b[1:]
		default:
			c.entry(&a[0], &b[0])
			a, b = a[1:], b[1:]
		}
	}
	return c.found
}

type comparison struct {
	block int64
	found []Difference
}

func (c *comparison) add(path, what, was, is string) {
	if was != is {
		c.found = append(c.found, Difference{Escape(path), what, was, is})
	}
}

func (c *comparison) entry(a, b *Entry) {
	if a.Type != b.Type {
		c.add(a.Path, "type", string(a.Type), string(b.Type))
		return
	}
	c.add(a.Path, "owner", fmt.Sprintf("%d:%d", a.UID, a.GID), fmt.Sprintf("%d:%d", b.UID, b.GID))
	c.add(a.Path, "mode", fmt.Sprintf("%04o", a.Mode), fmt.Sprintf("%04o", b.Mode))
	c.add(a.Path, "time", seconds(unix.StatxTimestamp{Sec: a.Sec, Nsec: a.Nsec}), seconds(unix.StatxTimestamp{Sec: b.Sec, Nsec: b.Nsec}))
	c.add(a.Path, "size", decimal(a.Size), decimal(b.Size))
	c.add(a.Path, "content", a.Sum, b.Sum)
	c.add(a.Path, "target", Escape(a.Target), Escape(b.Target))
	c.add(a.Path, "device", fmt.Sprintf("%d:%d", unix.Major(a.Device), unix.Minor(a.Device)), fmt.Sprintf("%d:%d", unix.Major(b.Device), unix.Minor(b.Device)))
	c.add(a.Path, "links", Escape(a.Link), Escape(b.Link))
	c.add(a.Path, "flags", letters(a.Flags), letters(b.Flags))
	c.add(a.Path, "project", decimal(int64(a.Project)), decimal(int64(b.Project)))
	if !alike(a.Holes, b.Holes, c.block, a.Size) {
		c.add(a.Path, "holes", rangesText(a.Holes), rangesText(b.Holes))
	}
	if !alike(a.Prealloc, b.Prealloc, c.block, a.Size) {
		c.add(a.Path, "preallocation", rangesText(a.Prealloc), rangesText(b.Prealloc))
	}
	c.xattrs(a, b)
}

func (c *comparison) xattrs(a, b *Entry) {
	values := map[string][2]string{}
	for side, e := range []*Entry{a, b} {
		for _, x := range e.Xattrs {
			pair := values[x[0]]
			pair[side] = fmt.Sprintf("%q", x[1])
			values[x[0]] = pair
		}
	}
	for side, e := range []*Entry{a, b} {
		for _, x := range e.Xattrs {
			if side == 1 && values[x[0]][0] != "" {
				continue // was compared already
			}
			c.add(a.Path, "xattr "+Escape(x[0]), values[x[0]][0], values[x[0]][1])
		}
	}
}

// alike reports that two lists of ranges say the same to a block: each range of
// one, without the blocks that it has in part, lies within the other.
func alike(a, b []Range, block, size int64) bool {
	return within(a, b, block, size) && within(b, a, block, size)
}

func within(inner, outer []Range, block, size int64) bool {
	var whole []Range
	for _, r := range inner {
		from := (r.From + block - 1) / block * block
		to := r.To / block * block
		if r.To == size {
			to = size // the last block of a file may be a part of one
		}
		if from < to {
			whole = append(whole, Range{from, to})
		}
	}
	return len(without(whole, outer)) == 0
}

// Unlisted are the differences that a report of a copy does not name as lost.
func Unlisted(found []Difference, lost []Loss, source *Manifest) []Difference {
	group := map[string]string{} // by each of several names of a file, the first
	for _, e := range source.Entries {
		if e.Link != "" {
			group[Escape(e.Path)] = Escape(e.Link)
		}
	}
	// What a file lost was listed by the name that the copier met first; that a name is
	// not there, by itself.
	key := func(path, what string) Loss {
		if first, is := group[path]; is && what != "entry" {
			path = first
		}
		return Loss{Path: path, What: what}
	}
	listed := map[Loss]bool{}
	for _, l := range lost {
		listed[key(l.Path, l.What)] = true
	}
	left := map[string][]string{} // the names that the copy has of a file
	for _, e := range source.Entries {
		if path := Escape(e.Path); e.Link != "" && !listed[key(path, "entry")] {
			left[group[path]] = append(left[group[path]], path)
		}
	}
	return slices.DeleteFunc(slices.Clone(found), func(d Difference) bool {
		names := left[group[d.Path]]
		relinked := d.What == "links" && (len(names) > 1 && d.Is == names[0] || len(names) == 1 && d.Is == "")
		return relinked || listed[key(d.Path, d.What)]
	})
}

func decimal(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func rangesText(ranges []Range) string {
	var words []string
	for _, r := range ranges {
		words = append(words, fmt.Sprintf("%d-%d", r.From, r.To))
	}
	return strings.Join(words, ",")
}
