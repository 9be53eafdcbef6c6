package zone

import "time"

// SerialLess reports whether a comes before b in the serial number arithmetic
// of RFC 1982 section 3.2. For two serials exactly 2^31 apart the RFC leaves the
// order undefined, and it is false both ways.
func SerialLess(a, b uint32) bool {
	distance := b - a
	return distance != 0 && distance < 1<<31
}

// NextSerial returns the serial to publish under after the one that is served:
// the Unix time, or one more than the served serial where the time is not ahead
// of it (two changes in a second, a stepped clock, a serial that was written as
// YYYYMMDDnn). Known is false where nothing was ever served. Zero is skipped,
// since some secondaries take it for "never loaded".
func NextSerial(served uint32, known bool, now time.Time) uint32 {
	next := uint32(now.Unix())
	if known && !SerialLess(served, next) {
		next = served + 1
	}
	if next == 0 {
		next = 1
	}
	return next
}
