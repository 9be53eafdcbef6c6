package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/safefs"
)

// budget bounds how much is removed in an hour. It is kept on disk and spent
// before anything is removed, so that neither a restart nor a kill gives any of
// it back.
type budget struct {
	mu    sync.Mutex
	state *safefs.Dir
	most  int
	now   func() time.Time
	spent []time.Time // within the last hour, oldest first
}

const (
	budgetFile = "deleted.json"
	budgetTime = time.Hour
)

func openBudget(state *safefs.Dir, most int, now func() time.Time) (*budget, error) {
	b := &budget{state: state, most: most, now: now}
	text, err := state.ReadFile(budgetFile, 16<<20)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return b, nil
	case err != nil:
		return nil, fmt.Errorf("reading what was removed: %w", err)
	}
	if err := json.Unmarshal(text, &b.spent); err != nil {
		return nil, fmt.Errorf("reading what was removed: %s: %w", budgetFile, err)
	}
	return b, nil
}

// spend takes n removals from the budget, all or none.
func (b *budget) spend(n int, what string) error {
	if n == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	spent := make([]time.Time, 0, len(b.spent)+n)
	for _, at := range b.spent {
		// A clock that was put back must not make the past the future: what seems
		// to lie ahead counts as now.
		if at.After(now) {
			at = now
		}
		if now.Sub(at) < budgetTime {
			spent = append(spent, at)
		}
	}
	if len(spent)+n > b.most {
		err := fmt.Errorf("removing %s: the policy of this server allows %d removals an hour, and %d were made: %w", what, b.most, len(spent), upkeep.ErrRefused)
		hint := "if this is meant, raise delete_budget in the agent's policy"
		if n <= b.most && len(spent) > 0 {
			hint = fmt.Sprintf("try again after %s, or raise delete_budget in the agent's policy", spent[len(spent)+n-b.most-1].Add(budgetTime).UTC().Format("15:04:05 MST"))
		}
		return upkeep.WithHint(err, hint)
	}
	for range n {
		spent = append(spent, now)
	}
	text, err := json.Marshal(spent)
	if err != nil {
		return err
	}
	if _, err := b.state.WriteFile(budgetFile, text, ownFile()); err != nil {
		return fmt.Errorf("removing %s: keeping count: %w", what, err)
	}
	b.spent = spent
	return nil
}

// ownFile is what files of the agent's own state are like.
func ownFile() safefs.Attributes {
	return safefs.Attributes{UID: os.Geteuid(), GID: os.Getegid(), Mode: 0o600}
}
