package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// report writes the table as Markdown.
func report(w io.Writer, o options, results []*result) {
	fmt.Fprintf(w, "| contender | death | kills | median | worst | secondary later (median, worst) | removed in %s at 20 %% loss | 1, 2, 3 of 3 down |\n", lossTime(results))
	fmt.Fprintf(w, "|---|---|---|---|---|---|---|---|\n")
	for _, r := range results {
		for i, death := range r.contender.deaths {
			loss, open, lag := "", "", ""
			if i == 0 {
				loss = "-"
				if o.parts["loss"] {
					loss = fmt.Sprint(r.removals)
				}
				open = strings.Join(r.open[:], "; ")
				if len(r.lag) > 0 {
					lag = show(median(r.lag)) + ", " + show(slices.Max(r.lag))
				}
			}
			fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", r.contender.name, death, r.times(death), lag, loss, open)
		}
	}
	fmt.Fprintln(w)
	for _, r := range results {
		if r.contender.note != "" {
			fmt.Fprintf(w, "- %s: %s\n", r.contender.name, r.contender.note)
		}
	}
}

func lossTime(results []*result) string {
	for _, r := range results {
		if r.lossTime != 0 {
			return r.lossTime.String()
		}
	}
	return "1m"
}

// times is the columns kills, median and worst.
func (r *result) times(death string) string {
	all := r.kills[death]
	missed := r.missed[death]
	if len(all) == 0 {
		if missed == 0 {
			return "0 | - | -"
		}
		return fmt.Sprintf("%d | never within %s | never", missed, r.contender.patience)
	}
	worst := show(slices.Max(all))
	if missed > 0 {
		worst = fmt.Sprintf("%d never within %s", missed, r.contender.patience)
	}
	return fmt.Sprintf("%d | %s | %s", len(all)+missed, show(median(all)), worst)
}

// median sorts a copy; of an even number of values it is the mean of the middle two.
func median(values []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

func show(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
