package watch

import (
	"encoding/json"
	"time"

	"upkeep/internal/failover"
	"upkeep/internal/probe"
)

const guardKey = "guard"

// restoreGuard makes the guard from what was stored of it, nil for nothing.
func (w *Watch) restoreGuard(blob []byte) {
	if blob == nil {
		return
	}
	var state failover.GuardState
	if err := json.Unmarshal(blob, &state); err != nil {
		w.log.Error("reading what was known of mass failures; starting afresh", "err", err)
		return
	}
	w.guard = failover.RestoreGuard(state, w.cfg.Now())
	w.remembered = state.Failing
}

// forgetRemembered drops what the restored guard knows of targets that are not
// declared any more. w.mu is held.
func (w *Watch) forgetRemembered() {
	for target := range w.remembered {
		if w.targets[probe.Key(target)] == nil {
			w.guard.Forget(target)
		}
	}
	w.remembered = nil
}

// saveGuard puts the guard's memory into states when a mass failure began, ended
// or was released, and from time to time. w.mu is held.
func (w *Watch) saveGuard(now time.Time, states map[string][]byte) {
	saved := &w.guardSaved
	if since := now.Sub(saved.at); saved.revision == w.guard.Revision() && since >= 0 && since < housekeeping {
		return
	}
	blob, err := json.Marshal(w.guard.Snapshot())
	if err != nil {
		w.log.Error("encoding what is known of mass failures", "err", err)
		return
	}
	saved.at, saved.revision = now, w.guard.Revision()
	states[guardKey] = blob
}
