package image

import (
	"time"

	"upkeep"
	"upkeep/internal/image/shadow"
)

const (
	// small is what is written in a moment by any disk, and not worth measuring for.
	small = 64 << 20
	// sample is how much is written to see how fast the disk is.
	sample = 16 << 20
	moment = 500 * time.Millisecond
)

// expect fills in how long a plan will take, by writing a little to the disk that
// the work will write to. A plan that cannot be measured says nothing.
func (p *Plan) expect(path string) {
	if p.More {
		return
	}
	p.Expected = upkeep.Duration(moment)
	if p.Writes <= small {
		return
	}
	s, err := shadow.New(path)
	if err != nil {
		p.Expected = 0
		return
	}
	defer s.Close()
	begun := time.Now()
	if _, err := s.File.WriteAt(make([]byte, sample), 0); err != nil {
		p.Expected = 0
		return
	}
	if err := s.File.Sync(); err != nil {
		p.Expected = 0
		return
	}
	p.Expected = upkeep.Duration((moment + time.Duration(float64(time.Since(begun))*float64(p.Writes)/sample)).Round(100 * time.Millisecond))
}
