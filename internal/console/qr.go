package console

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

// qrCode is a text that cameras read, as a path of SVG. An image of its own, with its
// secret in an address, would be in logs and in caches.
type qrCode struct {
	Size int // with the quiet zone around it
	Path string
}

// qrQuiet is the least white space around a code, in modules (ISO/IEC 18004).
const qrQuiet = 4

// drawQR returns nil for a text that is too long: the text beside it is enough.
func drawQR(text string) *qrCode {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return nil
	}
	var path strings.Builder
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			begin := x
			for code.Black(x, y) {
				x++
			}
			if x > begin {
				fmt.Fprintf(&path, "M%d,%dh%dv1h-%dz", begin+qrQuiet, y+qrQuiet, x-begin, x-begin)
			}
		}
	}
	return &qrCode{Size: code.Size + 2*qrQuiet, Path: path.String()}
}
