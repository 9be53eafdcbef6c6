package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/api/wire"
	"upkeep/internal/declare"
)

func newDelete(a *app) *cobra.Command {
	var files []string
	c := &cobra.Command{
		Use:   "delete KIND NAME | delete KIND/NAME | delete -f FILE",
		Short: "Delete declared objects; what they published is withdrawn",
		Long: `Delete one object, or those that YAML documents name. An object that another one
that stays still names is refused. With -f all of them are deleted, in one
transaction, or none.`,
		Example:           "  upkeep delete pool web\n  upkeep delete pool/web\n  upkeep delete -f web.yaml",
		Args:              atMost(2),
		ValidArgsFunction: a.completeObjects,
		RunE: func(c *cobra.Command, args []string) error {
			targets, err := a.targets(args, files)
			if err != nil {
				return err
			}
			return a.delete(c.Context(), targets)
		},
	}
	c.Flags().StringArrayVarP(&files, "file", "f", nil, filesHelp)
	return c
}

// deletion names an object to delete.
type deletion struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Action string `json:"action"`
}

func (a *app) targets(args, files []string) ([]deletion, error) {
	args = split(args)
	switch {
	case len(files) > 0 && len(args) > 0:
		return nil, &usageError{err: fmt.Errorf("give KIND and NAME, or -f, not both")}
	case len(files) == 0:
		if err := exactly("KIND", "NAME")(&cobra.Command{Use: "upkeep delete KIND NAME"}, args); err != nil {
			return nil, err
		}
		kind, err := kinds(args)
		if err != nil {
			return nil, err
		}
		return []deletion{{Kind: kind[0], Name: args[1]}}, nil
	}
	sources, err := a.sources(files)
	if err != nil {
		return nil, err
	}
	var targets []deletion
	for _, source := range sources {
		objects, err := declare.Read(source.File, []byte(source.Text))
		if err != nil {
			return nil, err
		}
		for _, object := range objects {
			targets = append(targets, deletion{Kind: object.ObjectKind(), Name: object.ObjectName()})
		}
	}
	// Those that name others come first, as one would delete them one by one.
	slices.SortStableFunc(targets, func(a, b deletion) int {
		return slices.Index(upkeep.Kinds, b.Kind) - slices.Index(upkeep.Kinds, a.Kind)
	})
	return targets, nil
}

func (a *app) delete(ctx context.Context, targets []deletion) error {
	up, err := a.client()
	if err != nil {
		return err
	}
	refs := make([]wire.Ref, len(targets))
	for i, t := range targets {
		refs[i] = wire.Ref{Kind: t.Kind, Name: t.Name}
	}
	if err := up.Delete(ctx, refs...); err != nil {
		if errors.Is(err, upkeep.ErrNotFound) && len(targets) == 1 && targets[0].Kind == upkeep.KindSite && hintOf(err) == "" {
			return upkeep.WithHint(err, "upkeep site list shows those that are declared")
		}
		return err
	}
	for i := range targets {
		targets[i].Action = wire.Deleted
	}
	if a.output != "table" {
		return a.show(targets)
	}
	for _, t := range targets {
		fmt.Fprintf(a.out, "%s/%s deleted\n", t.Kind, upkeep.Printable(t.Name))
	}
	return nil
}
