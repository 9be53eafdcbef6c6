package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
	"upkeep/internal/article"
	"upkeep/internal/task"
)

func newImport(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "import",
		Short: "Take over what another system keeps",
		Args:  cobra.ArbitraryArgs,
		RunE:  verbsOnly,
	}
	c.AddCommand(newImportArticle(a))
	return c
}

func newImportArticle(a *app) *cobra.Command {
	i := importVerb{app: a}
	c := &cobra.Command{
		Use:   "article (--dump FILE | --mysql DSN) --server SERVER",
		Short: "Take over the tables virtual_hosts and upkeep of 2010's PHP script",
		Long: `Read the tables virtual_hosts and upkeep that the PHP script of "Mass Virtual
Hosting Part Six" keeps in MySQL, and show the accounts, sites and jobs that they
become, as documents. What cannot be taken over is said, with its row. With
--apply they are made.`,
		Example: "  mysqldump hosting virtual_hosts upkeep > old.sql\n  upkeep import article --dump old.sql --server web1 > new.yaml\n  upkeep import article --dump old.sql --server web1 --apply",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return i.run(c.Context()) },
	}
	flags := c.Flags()
	flags.StringVar(&i.dump, "dump", "", "`file` that mysqldump wrote, - for standard input")
	flags.StringVar(&i.mysql, "mysql", os.Getenv("UPKEEP_MYSQL"), "`DSN` of the running database, USER:PASSWORD@tcp(HOST:3306)/NAME ($UPKEEP_MYSQL)")
	flags.StringSliceVar(&i.options.Servers, "server", nil, "web `servers` that the sites are for")
	flags.StringVar(&i.options.Home, "home", "/home", "`folder` of the homes in the old jobs")
	flags.BoolVar(&i.options.Canonical, "canonical", true, "send visitors of www.NAME to NAME, as the script did")
	flags.StringArrayVar(&i.accounts, "account", nil, "which account a user becomes, as `USER=NAME`; else the user's letters and digits are its name")
	flags.BoolVar(&i.options.CGI, "cgi", true, "run programs in cgi-bin, as the script did for every site; web servers without suexec refuse such sites")
	flags.BoolVar(&i.apply, "apply", false, "make what is shown")
	return c
}

type importVerb struct {
	*app
	dump, mysql string
	accounts    []string // USER=NAME
	options     article.Options
	apply       bool
}

func (i *importVerb) run(ctx context.Context) error {
	if (i.dump == "") == (i.mysql == "") {
		return &usageError{err: errors.New("give one of --dump FILE and --mysql DSN")}
	}
	if len(i.options.Servers) == 0 {
		return &usageError{err: errors.New("--server is required: the old tables do not say where the sites are to live")}
	}
	i.options.Accounts = map[string]string{}
	for _, pair := range i.accounts {
		at := strings.LastIndexByte(pair, '=') // names of users may have one, those of accounts have none
		if at <= 0 || i.options.Accounts[pair[:at]] != "" {
			return &usageError{err: fmt.Errorf("--account %s: give USER=NAME, once for each user", upkeep.Printable(pair))}
		}
		i.options.Accounts[pair[:at]] = pair[at+1:]
	}
	tables, err := i.read(ctx)
	if err != nil {
		return err
	}
	plan, err := tables.Convert(i.options)
	if err != nil {
		return err
	}
	for _, note := range plan.Notes {
		fmt.Fprintln(i.err, "note:", upkeep.Printable(note))
	}
	if !i.apply {
		return i.print(plan)
	}
	return i.make(ctx, plan)
}

func (i *importVerb) read(ctx context.Context) (article.Tables, error) {
	if i.mysql != "" {
		return article.ReadMySQL(ctx, i.mysql)
	}
	if i.dump == "-" {
		return article.ReadDump(i.in)
	}
	file, err := os.Open(i.dump)
	if err != nil {
		return article.Tables{}, fmt.Errorf("reading the dump: %w", err)
	}
	defer file.Close()
	return article.ReadDump(file)
}

// print shows the plan: documents that apply takes, jobs as comments.
func (i *importVerb) print(plan article.Plan) error {
	if objects := plan.Objects(); len(objects) > 0 {
		text, err := documents(objects...)
		if err != nil {
			return err
		}
		fmt.Fprint(i.out, text)
	}
	for _, payload := range plan.Jobs {
		text, err := json.Marshal(payload)
		if err != nil {
			return err
		}
		fmt.Fprintf(i.out, "# job %s %s\n", payload.Kind(), text)
	}
	fmt.Fprintf(i.err, "%s, %s, %s; nothing was made: --apply does\n",
		count(len(plan.Accounts), "account"), count(len(plan.Sites), "site"), count(len(plan.Jobs), "job"))
	return nil
}

// make declares accounts and sites in one transaction, then asks for the jobs.
func (i *importVerb) make(ctx context.Context, plan article.Plan) error {
	up, err := i.client()
	if err != nil {
		return err
	}
	var made struct {
		Declared wire.ApplyResult `json:"declared"`
		Jobs     []upkeep.Job     `json:"jobs"`
	}
	made.Jobs = []upkeep.Job{}
	objects, err := i.fresh(ctx, up, plan.Objects())
	if err != nil {
		return err
	}
	if len(objects) > 0 {
		if made.Declared, err = i.declare(ctx, up, objects...); err != nil {
			return err
		}
	}
	if err := i.awaitHomes(ctx, up, plan); err != nil {
		return err
	}
	for _, payload := range plan.Jobs {
		text, err := json.Marshal(payload)
		if err != nil {
			return err
		}
		servers := i.options.Servers
		if payload.Kind() == upkeep.JobNotification {
			servers = []string{""}
		}
		for _, server := range servers {
			job, err := up.RunJob(ctx, wire.NewJob{Kind: payload.Kind(), Server: server, Payload: text})
			if err != nil {
				return fmt.Errorf("%d accounts and sites are declared; asking for job %s: %w", len(plan.Objects()), payload.Object(), err)
			}
			made.Jobs = append(made.Jobs, job)
		}
	}
	if i.output != "table" {
		return i.show(made)
	}
	i.changes(made.Declared)
	for _, job := range made.Jobs {
		fmt.Fprintf(i.out, "job %d %s %s\n", job.ID, job.Kind, upkeep.Printable(job.Object))
	}
	return nil
}

// fresh leaves out what is declared already in another way: what was changed here since
// an earlier import, or made here, is newer than the old tables.
func (i *importVerb) fresh(ctx context.Context, up *client.Client, objects []upkeep.Object) ([]upkeep.Object, error) {
	if len(objects) == 0 {
		return nil, nil
	}
	text, err := documents(objects...)
	if err != nil {
		return nil, err
	}
	would, err := up.Diff(ctx, []wire.Source{{File: "what was asked for", Text: text}})
	if err != nil {
		return nil, withoutPlaces(err)
	}
	var fresh []upkeep.Object
	for at, object := range objects {
		if at < len(would.Changes) && would.Changes[at].Action == wire.Changed { // which are in the order of the documents
			fmt.Fprintf(i.err, "note: %s %s is declared already, in another way, and stays as it is; without --apply the document of the old tables is shown\n",
				object.ObjectKind(), upkeep.Printable(object.ObjectName()))
			continue
		}
		fresh = append(fresh, object)
	}
	return fresh, nil
}

// awaitHomes waits for the sites of a plan that also makes folders: the folders are in
// homes, which are made with the first site of an account.
func (i *importVerb) awaitHomes(ctx context.Context, up *client.Client, plan article.Plan) error {
	if !slices.ContainsFunc(plan.Jobs, func(p task.Payload) bool { return p.Kind() == upkeep.JobMkdir }) {
		return nil
	}
	jobs, err := up.Jobs(ctx, wire.JobFilter{States: []upkeep.JobState{upkeep.JobPending, upkeep.JobRunning}})
	if err != nil {
		return err
	}
	var ids []int64
	for _, job := range jobs {
		if strings.HasPrefix(job.Object, upkeep.KindSite+"/") && job.Kind != upkeep.JobNotification {
			ids = append(ids, job.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	var late *timeoutError
	if _, err = i.await(ctx, up, homesPatience, ids...); errors.As(err, &late) {
		fmt.Fprintf(i.err, "note: %s; a folder in a home that is not there yet fails, and can be made later: upkeep job retry ID\n", late)
		return nil
	}
	return err
}

// homesPatience is how long folders wait for the sites in whose homes they are.
const homesPatience = time.Minute
