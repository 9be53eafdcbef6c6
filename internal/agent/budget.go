package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
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
	spent []removal // within the last hour, oldest first
}

// removal is something that was removed, or that was to be: an attempt counts,
// and further ones for the same thing count with it.
type removal struct {
	What string    `json:"what"` // such as "site/example.test"
	At   time.Time `json:"at"`
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

// spend takes the removal of each of these things from the budget, all or none.
func (b *budget) spend(what ...string) error {
	if len(what) == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	spent := b.recent(now)
	for _, one := range what {
		if !slices.ContainsFunc(spent, func(r removal) bool { return r.What == one }) {
			spent = append(spent, removal{one, now})
		}
	}
	if len(spent) > b.most {
		return b.exceeded(what, spent)
	}
	text, err := json.Marshal(spent)
	if err != nil {
		return err
	}
	if _, err := b.state.WriteFile(budgetFile, text, ownFile()); err != nil {
		return fmt.Errorf("keeping count of what is removed: %w", err)
	}
	b.spent = spent
	return nil
}

// spendSome takes the removal of as many of these things, in order, as the budget has
// room for. It returns the others, and why.
func (b *budget) spendSome(what []string) (left []string, why, err error) {
	b.mu.Lock()
	spent := b.recent(b.now())
	room, some, refused := b.most-len(spent), []string(nil), slices.Clone(spent)
	for _, one := range what {
		again := slices.ContainsFunc(spent, func(r removal) bool { return r.What == one })
		switch {
		case again:
		case room > 0:
			room--
			refused = append(refused, removal{one, b.now()})
		default:
			left = append(left, one)
			continue
		}
		some = append(some, one)
	}
	for _, one := range left {
		refused = append(refused, removal{one, b.now()})
	}
	b.mu.Unlock()
	if err := b.spend(some...); err != nil { // where somebody else was faster, too
		return nil, nil, err
	}
	if len(left) > 0 {
		why = b.exceeded(left, refused)
	}
	return left, why, nil
}

// recent is what was spent within the last hour. A clock that was put back must
// not make the past the future: what seems to lie ahead counts as now.
func (b *budget) recent(now time.Time) []removal {
	spent := make([]removal, 0, len(b.spent)+1)
	for _, r := range b.spent {
		if r.At.After(now) {
			r.At = now
		}
		if now.Sub(r.At) < budgetTime {
			spent = append(spent, r)
		}
	}
	return spent
}

func (b *budget) exceeded(what []string, spent []removal) error {
	name := strings.Replace(what[0], "/", " ", 1)
	if len(what) > 1 {
		name += fmt.Sprintf(" and %d more", len(what)-1)
	}
	before := len(b.recent(b.now()))
	err := fmt.Errorf("removing %s: the policy of this server allows %d removals an hour, and %d were made: %w", name, b.most, before, upkeep.ErrRefused)
	hint := "if this is meant, raise delete_budget in the agent's policy"
	if over := len(spent) - b.most; over <= before && len(spent)-before <= b.most {
		hint = fmt.Sprintf("try again after %s, or raise delete_budget in the agent's policy", spent[over-1].At.Add(budgetTime).UTC().Format("15:04:05 MST"))
	}
	return upkeep.WithHint(err, hint)
}

// ownFile is what files of the agent's own state are like.
func ownFile() safefs.Attributes {
	return safefs.Attributes{UID: os.Geteuid(), GID: os.Getegid(), Mode: 0o600}
}
