package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
)

func newGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "get [KIND [NAME] | KIND/NAME]",
		Short: "Show what is declared",
		Long: `Show declared objects of a kind, one of them, or all. With -o yaml or json the
documents come out as apply takes them: applied again they change nothing.`,
		Example:           "  upkeep get\n  upkeep get pool\n  upkeep get pool web -o yaml\n  upkeep get pool/web",
		Args:              atMost(2),
		ValidArgsFunction: a.completeObjects,
		RunE: func(c *cobra.Command, args []string) error {
			return a.get(c.Context(), args)
		},
	}
}

// split makes KIND and NAME of KIND/NAME, which is how objects are printed.
func split(args []string) []string {
	if len(args) != 1 {
		return args
	}
	if kind, name, both := strings.Cut(args[0], "/"); both && name != "" {
		return []string{kind, name}
	}
	return args
}

// kinds reads a kind as people write it: "pool", "pools", or nothing for all.
func kinds(args []string) ([]string, error) {
	if len(args) == 0 || args[0] == "all" && len(args) == 1 {
		return upkeep.Kinds, nil
	}
	kind := strings.TrimSuffix(strings.ToLower(args[0]), "s")
	if !slices.Contains(upkeep.Kinds, kind) {
		return nil, &usageError{
			err:  fmt.Errorf("kind %q must be one of %s", args[0], strings.Join(upkeep.Kinds, ", ")),
			hint: nearKind(kind),
		}
	}
	return []string{kind}, nil
}

// nearKind suggests the kinds that begin as the given word does, or all.
func nearKind(word string) string {
	near := upkeep.Kinds
	if n := min(2, len(word)); n > 0 {
		alike := func(kind string) bool { return strings.HasPrefix(kind, word[:n]) }
		if slices.ContainsFunc(near, alike) {
			near = slices.DeleteFunc(slices.Clone(near), func(kind string) bool { return !alike(kind) })
			return "did you mean: " + strings.Join(near, ", ")
		}
	}
	return "upkeep get lists what is declared, of all kinds"
}

func (a *app) get(ctx context.Context, args []string) error {
	args = split(args)
	all, err := kinds(args)
	if err != nil {
		return err
	}
	name := ""
	if len(args) == 2 {
		name = args[1]
	}
	up, err := a.client()
	if err != nil {
		return err
	}
	if a.output == "yaml" {
		return a.getYAML(ctx, up, all, name)
	}
	var objects []wire.Declared
	for _, kind := range all {
		some, err := up.Objects(ctx, kind, name)
		if err != nil {
			return err
		}
		objects = append(objects, some...)
	}
	if a.output == "json" {
		documents := []json.RawMessage{}
		for _, object := range objects {
			documents = append(documents, object.Object)
		}
		if name != "" && len(documents) == 1 {
			return a.show(documents[0])
		}
		return a.show(documents)
	}
	if len(objects) == 0 {
		fmt.Fprintln(a.err, "nothing is declared; upkeep apply -f FILE declares objects")
		return nil
	}
	t := newTable("KIND", "NAME", "GENERATION", "SUMMARY")
	for _, object := range objects {
		t.add(object.Kind, object.Name, strconv.FormatInt(object.Generation, 10), summary(object))
	}
	return t.write(a.out)
}

func (a *app) getYAML(ctx context.Context, up *client.Client, all []string, name string) error {
	written := false
	for _, kind := range all {
		text, err := up.ObjectsYAML(ctx, kind, name)
		if err != nil {
			return err
		}
		if len(text) == 0 {
			continue
		}
		if written {
			fmt.Fprintln(a.out, "---")
		}
		if _, err := a.out.Write(text); err != nil {
			return err
		}
		written = true
	}
	return nil
}

// summary is a few words on an object of any kind that this program knows.
func summary(d wire.Declared) string {
	var fields struct {
		Zones, Records []json.RawMessage
		Members        []json.RawMessage
		Check          struct{ Type string }
		Publishers     []upkeep.PublisherStatus
		Servers        []string
		Type           string
		Events         []string
		Roles, Aliases []string
		Account, Until string
		Suspended      bool
	}
	if err := json.Unmarshal(d.Object, &fields); err != nil {
		return ""
	}
	switch d.Kind {
	case upkeep.KindPool:
		return fmt.Sprintf("%s, %s check, in %s", count(len(fields.Members), "member"), fields.Check.Type, count(len(fields.Zones), "zone"))
	case upkeep.KindZone:
		types := []string{}
		for _, p := range fields.Publishers {
			types = append(types, p.By())
		}
		text := "published by " + strings.Join(types, " and ")
		if n := len(fields.Servers); n > 0 {
			text += ", " + count(n, "name server") + " asked"
		}
		return text
	case upkeep.KindReceiver:
		told := "of what changes"
		if len(fields.Events) > 0 {
			told = "of " + strings.Join(fields.Events, ", ")
		}
		return fmt.Sprintf("told by %s %s", fields.Type, told)
	}
	return hostingSummary(d.Kind, fields.Account, fields.Until, fields.Roles, fields.Servers, len(fields.Aliases), fields.Suspended)
}

// hostingSummary is a few words on a server, account, delegation or site.
func hostingSummary(kind, account, until string, roles, servers []string, aliases int, suspended bool) string {
	text := ""
	switch kind {
	case upkeep.KindServer:
		text = "for " + strings.Join(roles, ", ")
	case upkeep.KindDelegation:
		text = "may be used by account " + account
		if until != "" {
			text += " until " + until
		}
	case upkeep.KindSite:
		text = "of account " + account + ", on " + strings.Join(servers, ", ")
		switch aliases {
		case 0:
		case 1:
			text += ", 1 alias"
		default:
			text += ", " + strconv.Itoa(aliases) + " aliases"
		}
	}
	if suspended {
		text = strings.TrimPrefix(text+", suspended", ", ")
	}
	return text
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

func atMost(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > n {
			return &usageError{err: fmt.Errorf("%s takes no argument such as %q", c.CommandPath(), args[n])}
		}
		return nil
	}
}

// exactly asks for the named arguments.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return &usageError{err: fmt.Errorf("missing: %s", strings.Join(names[len(args):], ", ")), hint: c.UseLine()}
		}
		return atMost(len(names))(c, args)
	}
}

// completeObjects completes KIND and NAME from what is declared.
func (a *app) completeObjects(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	const only = cobra.ShellCompDirectiveNoFileComp
	if len(args) == 0 {
		return upkeep.Kinds, only
	}
	all, err := kinds(args)
	if err != nil || len(all) != 1 || len(args) > 1 {
		return nil, only
	}
	up, err := a.client()
	if err != nil {
		return nil, only
	}
	objects, err := up.Objects(c.Context(), all[0], "")
	if err != nil {
		return nil, only
	}
	var names []string
	for _, object := range objects {
		names = append(names, object.Name)
	}
	return names, only
}
