package agent

import (
	"context"

	"upkeep/internal/task"
)

// userRemove removes the system user of an account, if upkeep made it. What is
// in its home stays, and its number is given to nobody else.
func userRemove(ctx context.Context, r *Root, j job) (any, error) {
	t := j.payload.(task.UserRemove)
	return nil, r.accounts.remove(ctx, t.Tenant, func() error { return r.budget.spend(t.Object()) })
}
