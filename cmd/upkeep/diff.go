package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"upkeep"
)

func newDiff(a *app) *cobra.Command {
	var files []string
	c := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Show what applying YAML documents would change",
		Long: `Show what apply would change, as unified diffs of the documents. Nothing is
changed. As with diff(1) the exit status is 0 when nothing would change, 1 when
something would, and 2 or above on errors.`,
		Example: "  upkeep diff -f web.yaml\n  upkeep diff -f web.yaml || upkeep apply -f web.yaml",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			err := a.diff(c.Context(), files)
			if err != nil && exitStatus(err) == exitFailed && err != statusError(exitFailed) {
				return &troubleError{err}
			}
			return err
		},
	}
	c.Flags().StringArrayVarP(&files, "file", "f", nil, filesHelp)
	return c
}

func (a *app) diff(ctx context.Context, files []string) error {
	sources, err := a.sources(files)
	if err != nil {
		return err
	}
	up, err := a.client()
	if err != nil {
		return err
	}
	result, err := up.Diff(ctx, sources)
	if err != nil {
		return err
	}
	if a.output != "table" {
		if err := a.show(result); err != nil {
			return err
		}
	} else {
		for _, warning := range result.Warnings {
			fmt.Fprintln(a.err, "warning:", upkeep.Printable(warning))
		}
		for _, change := range result.Changes {
			for line := range strings.Lines(change.Diff) {
				fmt.Fprintln(a.out, upkeep.Printable(strings.TrimRight(line, "\n")))
			}
		}
	}
	if result.Changed() {
		return statusError(exitFailed)
	}
	return nil
}
