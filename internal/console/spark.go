package console

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"upkeep"
)

// Units of a drawn hour of round trips, as many as pixels.
const (
	sparkWidth  = 120
	sparkHeight = 20
	// sparkHead is how many times the highest median the drawing has room for: one
	// answer that was late would press all others flat.
	sparkHead = 3
)

// spark is the round trips of a member in the last hour, drawn and in words.
type spark struct {
	Width, Height int
	Band          string // from the least to the greatest of each slot, as a path of SVG
	Line          string // through the medians
	Label         string
}

// drawSpark returns nil where there is nothing to be drawn.
func drawSpark(l upkeep.Latency, now time.Time) *spark {
	if len(l.Slots) == 0 || l.Slot <= 0 || l.Max <= 0 {
		return nil
	}
	s := &spark{Width: sparkWidth, Height: sparkHeight, Label: fmt.Sprintf("round trips in the last hour: at least %s, median %s, at most %s",
		roundTrip(time.Duration(l.Min)), roundTrip(time.Duration(l.Median)), roundTrip(time.Duration(l.Max)))}
	highest := upkeep.Duration(1)
	for _, slot := range l.Slots {
		highest = max(highest, slot.Median)
	}
	top := min(l.Max, highest*sparkHead)
	y := func(d upkeep.Duration) int {
		return sparkHeight - 1 - int(int64(sparkHeight-2)*int64(min(d, top))/int64(top))
	}
	count := max(1, int(time.Hour/time.Duration(l.Slot)))
	width := max(1, sparkWidth/count)
	// Slots have their places by how long ago they began, in whole slots: the drawing
	// is another only when one ends or is added to.
	present := now.Unix() / max(1, int64(time.Duration(l.Slot)/time.Second))
	var band, line strings.Builder
	last := -1
	for _, slot := range l.Slots {
		place := count - 1 - int(present-slot.At.Unix()/max(1, int64(time.Duration(l.Slot)/time.Second)))
		if place < 0 || place >= count {
			continue
		}
		x, high, low, middle := place*width, y(slot.Max), y(slot.Min), y(slot.Median)
		fmt.Fprintf(&band, "M%d,%dh%dV%dh-%dz", x, high, width, low+1, width)
		if place != last+1 || line.Len() == 0 {
			fmt.Fprintf(&line, "M%d,%d", x, middle)
		} else {
			fmt.Fprintf(&line, "V%d", middle)
		}
		fmt.Fprintf(&line, "h%d", width)
		last = place
	}
	s.Band, s.Line = band.String(), line.String()
	return s
}

// sparks draws the members that are shown of a pool. Without, the page is whole.
func (c *Console) sparks(ctx context.Context, p *poolView, now time.Time) {
	addresses := make([]netip.Addr, len(p.Members))
	for i, m := range p.Members {
		addresses[i] = m.Address
	}
	all, err := c.o.Observer.Latency(ctx, p.Name, addresses)
	if err != nil || len(all) != len(addresses) { // as when a member was just removed
		c.o.Log.Debug("reading round trips for a page", "pool", p.Name, "err", err)
		return
	}
	for i := range p.Members {
		p.Members[i].Spark = drawSpark(all[i], now)
	}
}
