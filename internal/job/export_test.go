package job

import "context"

// Misremember has the list of sites hold a state that nobody told of.
func (d *Dispatcher) Misremember(site, state string) {
	d.roll.reading.Lock()
	defer d.roll.reading.Unlock()
	entry := d.roll.entries[site]
	entry.state = state
	d.roll.entries[site] = entry
	d.roll.sort()
}

// Reread is what is done every minute.
func (d *Dispatcher) Reread(ctx context.Context) { d.reread(ctx) }

// Nudge has River look into its queue.
func (d *Dispatcher) Nudge() { d.river.Nudge() }
