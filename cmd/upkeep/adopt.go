package main

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/declare"
	"upkeep/internal/zone"
)

func newZoneAdopt(a *app) *cobra.Command {
	v := adoptVerb{app: a}
	c := &cobra.Command{
		Use:   "adopt ZONEFILE --pool POOL",
		Short: "Convert a zone file so that it includes what upkeep writes",
		Long: `Turn a zone file of BIND into the form that includes the two files that upkeep
writes: the SOA record and the pool's addresses give way to $INCLUDE lines, and
all else stays as it is, comments included.

Without --write the change is shown as a diff and nothing is touched. With it
the old file is kept beside the new one. What cannot be shown to be safe is
refused: records before and after, as named-checkzone reads them, must differ in
nothing but the serial and the pool's addresses.

The pool, and the zone if it is declared, come from the documents of -f or from
the running upkeep. A zone that is running already must be declared with the SOA
fields and the TTL that its file has; which these are is said.`,
		Example: "  upkeep zone adopt /etc/bind/db.example.test --pool web --include-dir /var/lib/bind/upkeep\n" +
			"  upkeep zone adopt /etc/bind/db.example.test --pool web -f web.yaml --write",
		Args: exactly("the zone file"),
		RunE: func(c *cobra.Command, args []string) error { return v.run(c.Context(), args[0]) },
	}
	c.Flags().StringArrayVarP(&v.files, "file", "f", nil, filesHelp)
	c.Flags().StringVar(&v.pool, "pool", "", "the `POOL` whose addresses move into ips.include")
	c.Flags().StringVar(&v.zone, "zone", "", "the `ZONE` in the file; taken from its declaration or the file's name when left out")
	c.Flags().StringVar(&v.includeDir, "include-dir", "", "`DIR` of soa.include and ips.include; from the zone's declaration when left out")
	c.Flags().StringVar(&v.chroot, "chroot", "", "`DIR` that named runs in, if it does")
	c.Flags().BoolVar(&v.write, "write", false, "make the change, keeping the old file")
	return c
}

type adoptVerb struct {
	*app
	files                          []string
	pool, zone, includeDir, chroot string
	write                          bool
}

// adopted is the outcome as -o json shows it.
type adopted struct {
	File    string   `json:"file"`
	Diff    string   `json:"diff"`
	Notes   []string `json:"notes,omitempty"`
	Written bool     `json:"written"`
	Backup  string   `json:"backup,omitempty"`
	// Document declares the zone as it went on being served.
	Document string `json:"document"`
}

func (v *adoptVerb) run(ctx context.Context, file string) error {
	if v.pool == "" {
		return &usageError{err: fmt.Errorf("--pool is missing: whose addresses move into ips.include")}
	}
	full, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	objects, err := v.objects(ctx)
	if err != nil {
		return err
	}
	options, err := v.options(full, objects)
	if err != nil {
		return err
	}
	options.Live = len(v.files) == 0 && len(options.Zone.Publishers) > 0
	plan, err := zone.Adopt(ctx, options)
	if err != nil {
		return err
	}
	var document bytes.Buffer
	if err := declare.Write(&document, declaredAs(plan, options)); err != nil {
		return err
	}
	result := adopted{File: plan.File, Diff: plan.Diff, Notes: plan.Notes, Document: document.String()}
	if v.write {
		if result.Backup, err = plan.Apply(ctx); err != nil {
			return err
		}
		result.Written = true
	}
	if v.output != "table" {
		return v.show(result)
	}
	v.tell(result)
	return nil
}

// objects are the documents of -f, or all that the running upkeep has declared.
func (v *adoptVerb) objects(ctx context.Context) ([]upkeep.Object, error) {
	var objects []upkeep.Object
	if len(v.files) > 0 {
		sources, err := v.sources(v.files)
		if err != nil {
			return nil, err
		}
		for _, s := range sources {
			some, err := declare.Read(s.File, []byte(s.Text))
			if err != nil {
				return nil, err
			}
			for _, object := range some {
				objects = append(objects, declare.ResolvePaths(object, s.Base))
			}
		}
		return objects, nil
	}
	up, err := v.client()
	if err != nil {
		return nil, err
	}
	for _, kind := range []string{upkeep.KindZone, upkeep.KindPool} {
		text, err := up.ObjectsYAML(ctx, kind, "")
		if err != nil {
			return nil, upkeep.WithHint(err, "give the documents with -f when no upkeep is running")
		}
		some, err := declare.Read("the running upkeep", text)
		if err != nil {
			return nil, err
		}
		objects = append(objects, some...)
	}
	return objects, nil
}

// options puts together what is declared and what the flags say.
func (v *adoptVerb) options(file string, objects []upkeep.Object) (zone.AdoptOptions, error) {
	o := zone.AdoptOptions{}
	at := slices.IndexFunc(objects, func(object upkeep.Object) bool {
		return object.ObjectKind() == upkeep.KindPool && object.ObjectName() == v.pool
	})
	if at < 0 {
		return o, upkeep.WithHint(fmt.Errorf("pool %s: %w", v.pool, upkeep.ErrNotFound), "declare it first, or give its document with -f")
	}
	o.Pool = objects[at].(upkeep.Pool)
	for _, object := range objects {
		z, is := object.(upkeep.Zone)
		if !is {
			continue
		}
		for _, p := range z.Publishers {
			if p.Type == upkeep.PublishBind && (p.ZoneFile == file || z.Name == v.zone) {
				o.Zone, o.Publisher = z, p
			}
		}
	}
	if o.Zone.Name == "" {
		o.Zone.Name = v.zone
	}
	if name, found := strings.CutPrefix(filepath.Base(file), "db."); found && o.Zone.Name == "" && upkeep.ValidName(name) {
		o.Zone.Name = strings.ToLower(name)
	}
	if o.Zone.Name == "" {
		return o, &usageError{err: fmt.Errorf("which zone %s holds cannot be told from its name", file), hint: "say it with --zone"}
	}
	o.Publisher.Type, o.Publisher.ZoneFile = upkeep.PublishBind, file
	for _, given := range []struct {
		flag string
		to   *string
	}{{v.includeDir, &o.Publisher.IncludeDir}, {v.chroot, &o.Publisher.Chroot}} {
		if given.flag == "" {
			continue
		}
		full, err := filepath.Abs(given.flag)
		if err != nil {
			return o, err
		}
		*given.to = full
	}
	if o.Publisher.IncludeDir == "" {
		return o, &usageError{err: fmt.Errorf("--include-dir is missing: the folder of soa.include and ips.include")}
	}
	return o, nil
}

// declaredAs is the zone's document with the publisher that was adopted for.
func declaredAs(plan *zone.Plan, o zone.AdoptOptions) upkeep.Zone {
	z := plan.Declared
	if !slices.ContainsFunc(z.Publishers, func(p upkeep.Publisher) bool { return p.Type == upkeep.PublishBind }) {
		z.Publishers = append(z.Publishers, o.Publisher)
	}
	return z
}

func (v *adoptVerb) tell(r adopted) {
	for line := range strings.Lines(r.Diff) {
		fmt.Fprintln(v.out, upkeep.Printable(strings.TrimRight(line, "\n")))
	}
	for _, note := range r.Notes {
		fmt.Fprintln(v.err, "note:", upkeep.Printable(note))
	}
	if !r.Written {
		fmt.Fprintln(v.err, "nothing was changed; --write makes the change")
		return
	}
	fmt.Fprintf(v.err, "written; the old file is kept as %s\n", upkeep.Printable(r.Backup))
	fmt.Fprintln(v.err, "declare the zone like this, so that it goes on as it was:")
	fmt.Fprint(v.out, "\n"+r.Document)
}
