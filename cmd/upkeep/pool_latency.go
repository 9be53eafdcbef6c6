package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"upkeep"
)

func newPoolLatency(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "latency POOL [MEMBER...]",
		Short: "Show how long members took to answer in the last hour",
		Long: `Show how long members took to answer their checks in the last hour: the least, the
median and the greatest, and the medians of two minutes each as a line of bars, the
newest at the right, as high as the greatest of them. A dot stands for two minutes
without an answer. With -o json, every one of them is given. They are kept in memory
alone: after a restart of upkeep they begin anew.`,
		Example:           "  upkeep pool latency web\n  upkeep pool latency web 192.0.2.11 -o json",
		Args:              func(c *cobra.Command, args []string) error { return exactly("POOL")(c, args[:min(1, len(args))]) },
		ValidArgsFunction: a.completePools,
		RunE: func(c *cobra.Command, args []string) error {
			return a.poolLatency(c.Context(), args[0], args[1:])
		},
	}
}

func (a *app) poolLatency(ctx context.Context, name string, members []string) error {
	up, err := a.client()
	if err != nil {
		return err
	}
	if len(members) == 0 {
		pool, err := up.Pool(ctx, name)
		if err != nil {
			return err
		}
		for _, m := range pool.Members {
			members = append(members, m.Address.String())
		}
	}
	all := make([]upkeep.Latency, len(members))
	for i, member := range members {
		if all[i], err = up.Latency(ctx, name, member); err != nil {
			return err
		}
	}
	if a.output != "table" {
		return a.show(all)
	}
	t := newTable("MEMBER", "LEAST", "MEDIAN", "GREATEST", "LAST HOUR")
	for _, l := range all {
		if len(l.Slots) == 0 {
			t.add(l.Address.String(), "", "", "", "no answer")
			continue
		}
		t.add(l.Address.String(), short(time.Duration(l.Min)), short(time.Duration(l.Median)), short(time.Duration(l.Max)), bars(l, time.Now()))
	}
	return t.write(a.out)
}

// heights are the bars of a line, the lowest first.
var heights = []rune("▁▂▃▄▅▆▇█")

// bars draws the medians of an hour, the newest at the right.
func bars(l upkeep.Latency, now time.Time) string {
	if l.Slot <= 0 {
		return ""
	}
	line := make([]rune, max(1, int(time.Hour/time.Duration(l.Slot))))
	for i := range line {
		line[i] = '·'
	}
	highest := upkeep.Duration(1)
	for _, slot := range l.Slots {
		highest = max(highest, slot.Median)
	}
	present := now.Truncate(time.Duration(l.Slot))
	for _, slot := range l.Slots {
		place := len(line) - 1 - int(present.Sub(slot.At.Truncate(time.Duration(l.Slot)))/time.Duration(l.Slot))
		if place >= 0 && place < len(line) {
			line[place] = heights[int(int64(len(heights)-1)*int64(max(0, slot.Median))/int64(highest))]
		}
	}
	return string(line)
}
