package lint

import (
	"go/ast"
	"slices"
	"strconv"
	"strings"
)

// room is a package with the packages of ours that it may import. Everything may
// import the root package, which has the words that all share, and [anywhere].
type room struct {
	may []string
	why string // what an arrow in the other direction would spoil
}

// rooms has every package of the module; one that is not in it is a finding.
// A name that ends in /... stands for all packages below it.
var rooms = map[string]room{
	".": {nil, "the glossary is imported by everything and does no I/O"},

	"internal/failover":     {nil, "decisions are pure: no clock, no network, no database, so that every one can be replayed in a test"},
	"internal/failover/...": {[]string{"internal/failover", "internal/beat"}, "simulations of decisions are as pure as they are; of heartbeats they play the rhythm"},
	"internal/probe":        {[]string{"internal/beat"}, "a probe reports one result and knows no history; history belongs to failover"},
	"internal/beat":         {[]string{"internal/secret"}, "the sender on a member is small and needs no database"},
	"internal/zone":         {[]string{"internal/zone/..."}, "publishing is told what to publish; it asks nobody"},
	"internal/zone/...":     {[]string{"internal/zone/answer"}, "parts of a publisher stay below it"},
	"internal/names":        {nil, "who may have a name is decided without a database, so that every case can be a test"},
	"internal/store":        {[]string{"internal/names"}, "queries carry what they are given; rules over them are the root's and those of names"},
	"internal/declare":      {[]string{"internal/names"}, "reading documents works without a running upkeep"},
	"internal/notify":       {[]string{"internal/secret"}, "telling reads events through an interface of its own; it cannot hold up a decision"},
	"internal/secret":       {nil, "a private file is read the same way for all who need one"},
	"internal/datadir":      {nil, "the folder is found before anything is opened"},
	"internal/lazy":         {nil, "it is imported by everything, and makes nothing of its own"},
	"internal/systemd":      {nil, "it speaks to the service manager only"},
	"internal/metrics":      {[]string{"internal/probe", "internal/beat", "internal/notify"}, "numbers are counted where they arise and read at a scrape"},

	"internal/agent": {
		[]string{"internal/link", "internal/link/...", "internal/task", "internal/policy", "internal/safefs", "internal/zone", "internal/vhost", "internal/webserver", "internal/image"},
		"what runs as root on servers is small: no database, no API, no decisions",
	},
	"internal/link":      {[]string{"internal/link/authority", "internal/secret"}, "agents and control share what they say and the connection; payloads are opaque to it, and no work is done"},
	"internal/policy":    {[]string{"internal/declare", "internal/safefs", "internal/task"}, "what a server allows is read from a file there and from nowhere else"},
	"internal/safefs":    {nil, "what touches customers' trees as root is small and knows nothing of what it is for"},
	"internal/image/...": {[]string{"internal/image/..."}, "work on images needs no control and no database: a laptop will do"},
	"internal/image":     {[]string{"internal/image/..."}, "work on images needs no control and no database: a laptop will do"},
	"internal/vhost":     {nil, "configuration is a pure function of the declared row and of paths: no disk, no server, so that each file can be made again byte for byte"},
	"internal/weblog":    {nil, "it runs as root below the web server and reads what visitors make it write: it is small and knows nothing else"},
	"internal/webserver": {[]string{"internal/safefs", "internal/vhost", "internal/weblog"}, "it writes, tests, reloads and asks; what is to be served it is told"},

	"internal/task": {nil, "payloads of jobs are shared by control and agents, and need neither's parts"},

	"internal/job": {
		[]string{"internal/store", "internal/link", "internal/task", "internal/vhost"},
		"it carries jobs from the database to agents; what is in them is decided elsewhere",
	},
	"internal/link/authority":  {[]string{"internal/secret"}, "who is who is known without a connection"},
	"internal/link/rostertest": {nil, "the suite knows what a roster does and nothing of who keeps it"},
	"internal/article":         {[]string{"internal/names", "internal/task"}, "an import is read and shown without a running upkeep"},

	"internal/hosting": {
		[]string{"internal/job", "internal/store", "internal/watch", "internal/link", "internal/link/authority"},
		"it answers people from rows, jobs and links; what is right on a server is its agent's",
	},

	"internal/selftest": {
		[]string{"internal/api/client", "internal/api/wire", "internal/article", "internal/link", "internal/link/authority", "internal/vhost", "internal/webserver"},
		"it attacks from outside: what it knows of a running upkeep is what an attacker could",
	},

	"internal/watch": {
		[]string{"internal/failover", "internal/probe", "internal/beat", "internal/zone", "internal/store", "internal/declare", "internal/notify", "internal/metrics"},
		"the loop is the only place that knows all of probing, deciding, keeping and publishing",
	},
	"internal/access": {nil, "who may do what is decided without a database, so that every case can be a test"},
	"internal/people": {[]string{"internal/access", "internal/store"}, "it finds out who somebody is; what they may do is access's"},
	"internal/api": {
		[]string{"internal/access", "internal/watch", "internal/api/wire", "internal/store", "internal/declare", "internal/metrics", "internal/names"},
		"the API carries what the loop offers; it neither probes nor publishes",
	},
	"internal/api/wire":    {nil, "the messages are shared by the server and by clients that have neither loop nor database"},
	"internal/api/client":  {[]string{"internal/api/wire"}, "a client needs nothing of the server"},
	"internal/api/apitest": {nil, "requests are made of the description alone"},
	"internal/console":     {[]string{"internal/access", "internal/api", "internal/api/wire", "internal/declare", "internal/names", "internal/task", "internal/watch", "internal/store"}, "pages show what the API has; forms are checked by the types that they fill"},
	"examples":             {nil, "documents to start from"},
	"cmd/...":              {[]string{"internal/...", "examples"}, "wiring happens here and nowhere else"},

	"internal/testkit":     {nil, "real servers for the tests of every floor"},
	"internal/testkit/...": {[]string{"internal/testkit", "internal/testkit/..."}, "real servers for the tests of every floor"},
	"internal/store/storetest": {
		[]string{"internal/store", "internal/link/rostertest"}, "the suite knows the store and what is asked of it, and nothing above it",
	},
	"internal/lint": {nil, "it reads the tree as text"},
	"e2e/...":       {[]string{"internal/..."}, "whole-system tests see everything"},
	"bench/...":     {[]string{"internal/..."}, "measurements see everything"},
	"tools":         {nil, "a list of tools"},
}

// anywhere is the package that all may import, the glossary too.
const anywhere = "internal/lazy"

// testOnly are packages that only tests, and tools that are run like tests, may
// import: they start servers and fail tests.
var testOnly = []string{"internal/testkit", "internal/testkit/...", "internal/store/storetest", "internal/link/rostertest", "internal/api/apitest", "internal/image/lookup/lookuptest"}

// onlyHere are packages of others that are kept behind one room, with the reason.
var onlyHere = []struct {
	imported string
	rooms    []string
	why      string
}{
	{"github.com/uptrace/bun", []string{"internal/store"}, "there is one place with queries"},
	{"github.com/riverqueue/river", []string{"internal/store", "internal/job"}, "the queue engine is behind jobs; nobody else has a queue"},
	{"modernc.org/sqlite", []string{"internal/store"}, "there is one place with queries"},
	{"database/sql", []string{"internal/store", "internal/article", "internal/testkit/..."}, "there is one place with queries"},
	{"go.yaml.in/yaml/v3", []string{"internal/declare", "cmd/..."}, "documents are read by the strict reader alone; the command line only prints"},
	{"github.com/spf13/cobra", []string{"cmd/..."}, "the command line is the outermost layer"},
	{"github.com/danielgtaylor/huma/v2", []string{"internal/api", "internal/api/...", "internal/console"}, "the API framework ends at the API"},
	{"github.com/go-webauthn/webauthn", []string{"internal/people"}, "who somebody is is found out in one place"},
	{"os/exec", []string{"internal/probe", "internal/zone", "internal/zone/...", "internal/notify", "internal/beat", "internal/webserver", "internal/agent", "internal/image/tool", "internal/image/chroot", "internal/selftest", "cmd/...", "bench/...", "e2e/...", "internal/testkit/..."},
		"programs are started in few places, with argument lists and never by a shell"},
}

const module = "upkeep"

func layers(f File) []Finding {
	var found []Finding
	here, known := roomOf(f.Package)
	if !known {
		found = append(found, f.finding(f.Syntax.Name, "package %s is not in the table of layers; add it to internal/lint/layers.go", f.Package))
	}
	for _, spec := range f.Syntax.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser has checked it
		}
		for _, limit := range onlyHere {
			if (imported == limit.imported || strings.HasPrefix(imported, limit.imported+"/")) && !f.Test && f.Package != "tools" && !matches(limit.rooms, f.Package) {
				found = append(found, f.finding(spec, "%s belongs to %s: %s", imported, strings.Join(limit.rooms, ", "), limit.why))
			}
		}
		ours, is := strings.CutPrefix(imported, module+"/")
		if !is {
			found = append(found, stdlibOnly(f, spec, imported)...)
			continue
		}
		switch {
		case ours == f.Package || ours == anywhere:
			// A test from outside its package, or what is below all.
		case matches(testOnly, ours) && !matches(testOnly, f.Package):
			if !f.Test && !matches([]string{"bench/...", "e2e/..."}, f.Package) {
				found = append(found, f.finding(spec, "%s is for tests only", ours))
			}
		case known && !matches(here.may, ours):
			found = append(found, f.finding(spec, "%s must not import %s: %s", f.Package, ours, here.why))
		}
	}
	return found
}

// pure are the rooms that import the standard library alone.
var pure = []string{".", "internal/failover"}

func stdlibOnly(f File, spec *ast.ImportSpec, imported string) []Finding {
	host, _, _ := strings.Cut(imported, "/")
	if f.Test || !slices.Contains(pure, f.Package) || !strings.Contains(host, ".") {
		return nil
	}
	return []Finding{f.finding(spec, "%s imports the standard library only, not %s", f.Package, imported)}
}

// roomOf finds the entry of a package, the most exact one first.
func roomOf(pkg string) (room, bool) {
	if r, exact := rooms[pkg]; exact {
		return r, true
	}
	for prefix := pkg; prefix != "."; {
		cut := strings.LastIndexByte(prefix, '/')
		if cut < 0 {
			break
		}
		prefix = prefix[:cut]
		if r, found := rooms[prefix+"/..."]; found {
			return r, true
		}
	}
	r, found := rooms[pkg+"/..."]
	return r, found
}

// matches reports whether a package is in a list of names and patterns.
func matches(list []string, pkg string) bool {
	return slices.ContainsFunc(list, func(pattern string) bool {
		if prefix, wild := strings.CutSuffix(pattern, "/..."); wild {
			return pkg == prefix || strings.HasPrefix(pkg, prefix+"/")
		}
		return pkg == pattern
	})
}
