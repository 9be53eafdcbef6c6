package btrfs

import "errors"

var errLZO = errors.New("the stream of LZO is malformed")

// lzoReader decompresses LZO1X, as Documentation/staging/lzo.rst of Linux has it: runs
// of literals, and matches, which repeat what came before.
type lzoReader struct {
	in   []byte
	out  []byte
	from int // where in out this stream begins: matches lie behind it
	most int // bytes of out
}

// lzo appends what a stream decompresses to. Out has no more than most bytes.
func lzo(out, in []byte, most int) ([]byte, error) {
	z := &lzoReader{in: in, out: out, from: len(out), most: most}
	const afterRun = 4
	state := 0 // the literals behind the last match, or afterRun
	if len(in) > 0 && in[0] > 17 {
		run := int(in[0]) - 17
		z.in = in[1:]
		if !z.literals(run) {
			return out, errLZO
		}
		state = min(run, afterRun)
	}
	for {
		op, ok := z.byte()
		if ok && op < 16 && state == 0 {
			if ok = z.run(op); !ok {
				return out, errLZO
			}
			state = afterRun
			continue
		}
		length, distance, next, end := 0, 0, 0, false
		if ok {
			length, distance, next, ok = z.match(op, state == afterRun)
			end = ok && distance == lzoEnd
		}
		switch {
		case end && len(z.in) == 0:
			return z.out, nil
		case !ok || end || !z.repeat(distance, length) || !z.literals(next):
			return out, errLZO
		}
		state = next
	}
}

// lzoEnd is the distance of the match that ends a stream.
const lzoEnd = 0x4000

// run copies a run of literals of which op begins the length.
func (z *lzoReader) run(op int) bool {
	length, ok := z.length(op, 15)
	return ok && z.literals(length+3)
}

// match reads how many bytes to repeat from how far before, and how many literals
// follow.
func (z *lzoReader) match(op int, afterRun bool) (length, distance, literals int, ok bool) {
	switch {
	case op >= 64:
		high, ok := z.byte()
		return op>>5 + 1, 1 + op>>2&7 + high<<3, op & 3, ok
	case op >= 32:
		length, ok = z.length(op&31, 31)
		low, high := z.two(&ok)
		return length + 2, 1 + low>>2 + high<<6, low & 3, ok
	case op >= 16:
		length, ok = z.length(op&7, 7)
		low, high := z.two(&ok)
		return length + 2, lzoEnd + (op&8)<<11 + low>>2 + high<<6, low & 3, ok
	}
	high, ok := z.byte()
	if afterRun {
		return 3, 1 + 2048 + op>>2 + high<<2, op & 3, ok
	}
	return 2, 1 + op>>2 + high<<2, op & 3, ok
}

func (z *lzoReader) byte() (int, bool) {
	if len(z.in) == 0 {
		return 0, false
	}
	b := z.in[0]
	z.in = z.in[1:]
	return int(b), true
}

func (z *lzoReader) two(ok *bool) (low, high int) {
	low, first := z.byte()
	high, second := z.byte()
	*ok = *ok && first && second
	return low, high
}

// length is a length that begins in an instruction: where that has 0, it goes on in
// bytes of which each 0 stands for 255.
func (z *lzoReader) length(begun, base int) (int, bool) {
	if begun != 0 {
		return begun, true
	}
	for length := base; length <= z.most; length += 255 {
		if b, ok := z.byte(); !ok || b != 0 {
			return length + b, ok
		}
	}
	return 0, false
}

func (z *lzoReader) literals(n int) bool {
	if n > len(z.in) || n > z.most-len(z.out) {
		return false
	}
	z.out, z.in = append(z.out, z.in[:n]...), z.in[n:]
	return true
}

// repeat copies from what came before, which the copy may run into.
func (z *lzoReader) repeat(distance, n int) bool {
	if distance > len(z.out)-z.from || n > z.most-len(z.out) {
		return false
	}
	for range n {
		z.out = append(z.out, z.out[len(z.out)-distance])
	}
	return true
}
