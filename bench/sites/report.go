package main

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// report writes the tables as Markdown.
func report(w io.Writer, results []*result) {
	fmt.Fprintln(w, "| one site added | sites present | on record -> answers, median (least to most) | asked -> answers, median |\n|---|---|---|---|")
	for _, r := range results {
		for _, one := range r.one {
			fmt.Fprintf(w, "| %s | %d | %s (%s to %s) | %s |\n", r.name, one.present,
				show(median(one.recorded)), show(slices.Min(one.recorded)), show(slices.Max(one.recorded)), show(median(one.asked)))
		}
	}
	fmt.Fprintln(w, "\n| many sites in one go | sites | all answer after | reloads | dead | failed requests to another site | its slowest answer |\n|---|---|---|---|---|---|---|")
	for _, r := range results {
		if m := r.many; m != nil {
			fmt.Fprintf(w, "| %s | %d | %s | %d | %d | %d | %s |\n", r.name, m.sites, show(m.took), m.reloads, m.dead, m.failed, show(m.worst))
		}
	}
	fmt.Fprintln(w, "\n| all files anew | sites | processor time | of it the web server's test | took | reloads | nothing changed: processor time, the first time | then, median | took | reloads |\n|---|---|---|---|---|---|---|---|---|---|")
	for _, r := range results {
		if r.regenerated != nil {
			first, last := r.settled[0], r.settled[len(r.settled)-1]
			fmt.Fprintf(w, "| %s | %d | %s | %s | %s | %d | %s | %s | %s | %d |\n", r.name, r.sites, show(r.regenerated.cpu), show(r.regenerated.tests), show(r.regenerated.took), r.regenerated.reloads,
				show(first.cpu), show(medianCPU(r.settled[min(1, len(r.settled)-1):])), show(last.took), last.reloads)
		}
	}
	fmt.Fprintln(w, "\n| folders made | how many | the first after | all after |\n|---|---|---|---|")
	for _, r := range results {
		if r.mkdirCount > 0 {
			fmt.Fprintf(w, "| %s | %d | %s | %s |\n", r.name, r.mkdirCount, show(r.firstMkdir), show(r.mkdirs))
		}
	}
}

func medianCPU(costs []cost) time.Duration {
	var all []time.Duration
	for _, one := range costs {
		all = append(all, one.cpu)
	}
	return median(all)
}

func median(values []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

func show(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}
