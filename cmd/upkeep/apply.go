package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/api/wire"
)

func newApply(a *app) *cobra.Command {
	var files []string
	var dry bool
	c := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Declare the objects in YAML documents, all of them or none",
		Long: `Declare things as YAML documents with kind and name: ` + strings.Join(upkeep.Kinds, ", ") + `.
All documents of all files are applied, or none when any of them breaks a rule.
Applying the same again changes nothing. What is not in the files stays as it is.

Relative paths inside a file (key files, include folders) count from the folder
of the file.`,
		Example: "  upkeep apply -f web.yaml\n  upkeep get pool web -o yaml | sed s/1m/30s/ | upkeep apply -f -",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.apply(c.Context(), files, dry)
		},
	}
	c.Flags().StringArrayVarP(&files, "file", "f", nil, filesHelp)
	c.Flags().BoolVar(&dry, "dry-run", false, "check everything, change nothing")
	return c
}

func (a *app) apply(ctx context.Context, files []string, dry bool) error {
	sources, err := a.sources(files)
	if err != nil {
		return err
	}
	up, err := a.client()
	if err != nil {
		return err
	}
	result, err := up.Apply(ctx, sources, dry)
	if err != nil {
		return err
	}
	if a.output != "table" {
		return a.show(result)
	}
	a.changes(result)
	return nil
}

// changes prints a line for each object, warnings apart.
func (a *app) changes(result wire.ApplyResult) {
	for _, warning := range result.Warnings {
		fmt.Fprintln(a.err, "warning:", upkeep.Printable(warning))
	}
	suffix := ""
	if result.DryRun {
		suffix = " (dry run: nothing was changed)"
	}
	for _, change := range result.Changes {
		fmt.Fprintf(a.out, "%s/%s %s%s\n", upkeep.Printable(change.Kind), upkeep.Printable(change.Name), upkeep.Printable(change.Action), suffix)
	}
}
