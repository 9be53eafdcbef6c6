package upkeep

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// ImageKind says how an image file is allocated on its host.
type ImageKind string

// Kinds of images. A file with a hole in it is sparse, however small the hole.
const (
	ImageSparse ImageKind = "sparse" // blocks are allocated when they are written
	ImageFull   ImageKind = "full"   // every block is allocated: no write can fail for want of space
)

// Size is a number of bytes, written as "4G" or "1536M": powers of 1024.
type Size int64

const sizeUnits = "KMGTP"

// ParseSize reads a number of bytes, or one with a unit of K, M, G, T or P (powers of
// 1024; "KiB" and "KB" mean the same). A fraction is taken where it makes whole
// bytes, as "1.5G" does.
func ParseSize(s string) (Size, error) {
	refused := func(rule string) (Size, error) {
		return 0, fmt.Errorf("%q is not a size: %s", s, rule)
	}
	const form = "want bytes, or a number with K, M, G, T or P (powers of 1024) such as 512M or 4G"
	number, factor := strings.ToUpper(s), int64(1)
	number = strings.TrimSuffix(strings.TrimSuffix(number, "B"), "I")
	if n := len(number); n > 0 && strings.IndexByte(sizeUnits, number[n-1]) >= 0 {
		factor = 1 << (10 * (1 + strings.IndexByte(sizeUnits, number[n-1])))
		number = number[:n-1]
	} else if number != strings.TrimSuffix(strings.ToUpper(s), "B") {
		return refused(form)
	}
	whole, fraction, dotted := strings.Cut(number, ".")
	if whole == "" || strings.Trim(whole+fraction, "0123456789") != "" || dotted && fraction == "" {
		return refused(form)
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n > math.MaxInt64/factor {
		return refused("it is more than a file can hold")
	}
	total := n * factor
	if dotted {
		part, err := strconv.ParseFloat("0."+fraction, 64)
		if rest := part * float64(factor); err != nil || rest != math.Trunc(rest) {
			return refused("it is no whole number of bytes")
		} else if total > math.MaxInt64-int64(rest) {
			return refused("it is more than a file can hold")
		} else {
			total += int64(rest)
		}
	}
	return Size(total), nil
}

// String is the shortest form that is exact: "4G", "1536M", "1000".
func (s Size) String() string {
	n, unit := int64(s), ""
	for i := 0; i < len(sizeUnits) && n != 0 && n%1024 == 0; i++ {
		n, unit = n/1024, sizeUnits[i:i+1]
	}
	return strconv.FormatInt(n, 10) + unit
}

// About is the size to three figures, for people: "1.21G", "2 bytes".
func (s Size) About() string {
	n, unit := float64(s), ""
	for i := 0; i < len(sizeUnits) && math.Abs(n) >= 1000; i++ {
		n, unit = n/1024, sizeUnits[i:i+1]
	}
	switch {
	case unit == "" && n != 0:
		return Plural(int64(s), "byte", "bytes")
	case unit == "" || math.Abs(n) >= 100:
		return strconv.FormatFloat(n, 'f', 0, 64) + unit
	case math.Abs(n) >= 10:
		return strings.TrimSuffix(strconv.FormatFloat(n, 'f', 1, 64), ".0") + unit
	}
	return strings.TrimSuffix(strconv.FormatFloat(n, 'f', 2, 64), ".00") + unit
}

// UnmarshalText implements encoding.TextUnmarshaler. There is no MarshalText: JSON
// has sizes as numbers of bytes.
func (s *Size) UnmarshalText(text []byte) error {
	v, err := ParseSize(string(text))
	if err != nil {
		return err
	}
	*s = v
	return nil
}

// UnmarshalJSON takes a number of bytes, and a text such as "4G".
func (s *Size) UnmarshalJSON(text []byte) error {
	if len(text) == 0 || text[0] != '"' {
		return json.Unmarshal(text, (*int64)(s))
	}
	var words string
	if err := json.Unmarshal(text, &words); err != nil {
		return err
	}
	return s.UnmarshalText([]byte(words))
}

// What an [ImageEvent] tells.
const (
	ImageStep     = "step"     // a step begins
	ImageProgress = "progress" // Done of Total of the step
	ImageNote     = "note"     // something to know: what was not carried, what will run short
	ImageDone     = "done"     // the change is in place, and on the disk
)

// ImageEvent is what work on an image tells while it goes on.
type ImageEvent struct {
	At    time.Time `json:"at"`
	Event string    `json:"event"`
	// Verb and File say which work it is: "grow", "/srv/images/web1.img".
	Verb string `json:"verb"`
	File string `json:"file"`
	// Step is what is being done, in a few words; Done and Total count bytes, or
	// thousandths where only a share is known.
	Step  string `json:"step,omitempty"`
	Done  int64  `json:"done,omitempty"`
	Total int64  `json:"total,omitempty"`
	Text  string `json:"text,omitempty"`
}

// ImageFile is an image that a server has, as its agent found it.
type ImageFile struct {
	// Root is a root of images in the agent's policy, and Path the file below it.
	Root string `json:"root"`
	Path string `json:"path"`
	// Size and all others are in bytes; Allocated is what it takes of its host.
	Size      int64     `json:"size"`
	Allocated int64     `json:"allocated"`
	Kind      ImageKind `json:"kind"`
	Changed   time.Time `json:"changed"`
	// Format is "raw", or how it is packed: "packed" is by upkeep.
	Format string `json:"format"`
	// Holds is the size of the image in a file that upkeep packed.
	Holds int64 `json:"holds,omitempty"`
	// Type is its file system's, empty for none that is known; what follows is of it.
	Type  string `json:"type,omitempty"`
	Label string `json:"label,omitempty"`
	UUID  string `json:"uuid,omitempty"`
	State string `json:"state,omitempty"`
	Used  int64  `json:"used,omitempty"`
	Free  int64  `json:"free,omitempty"`
	// Partitions is how many there are.
	Partitions int `json:"partitions,omitempty"`
	// Holders are who has it, in words.
	Holders []string `json:"holders,omitempty"`
	// Unfinished says what a killed command left.
	Unfinished string `json:"unfinished,omitempty"`
	// Damage says why nothing more is known.
	Damage string `json:"damage,omitempty"`
}

// ImageList is the images of a server.
type ImageList struct {
	Server string      `json:"server,omitempty"`
	At     time.Time   `json:"at"`
	Images []ImageFile `json:"images"`
	// More is how many images there are beyond those that are listed.
	More int `json:"more,omitempty"`
	// Problems are roots and folders that could not be looked into, with the reason.
	Problems []string `json:"problems,omitempty"`
}
