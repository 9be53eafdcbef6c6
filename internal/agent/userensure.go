package agent

import (
	"context"

	"upkeep/internal/task"
)

// userEnsure makes the system user of an account, or sees that it is there.
func userEnsure(ctx context.Context, r *Root, j job) (any, error) {
	_, err := r.accounts.ensure(ctx, j.payload.(task.UserEnsure).Tenant)
	return nil, err
}
