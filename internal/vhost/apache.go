package vhost

import (
	"bytes"
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Apache makes configuration for Apache 2.4 (2.4.49 or newer).
type Apache struct{}

const (
	// DefineTest is defined where configuration is tested, and nowhere else.
	DefineTest = "UPKEEP_TEST"

	definePiped  fixed = "UPKEEP_PIPED"
	defineErrors fixed = "UPKEEP_ERRORS"
	logNickname  fixed = "upkeep"
)

// apacheSite is a site on its way into a file.
type apacheSite struct {
	apacheConf
	*checked
}

// Site makes the files of a site: its configuration, that of its wildcard name,
// texts of error pages, password files and the php-fpm pool.
func (Apache) Site(in Input) ([]File, error) {
	site, err := check(in)
	if err != nil {
		return nil, err
	}
	s := &apacheSite{checked: site}
	text, err := s.configuration(s.exact)
	if err != nil {
		return nil, err
	}
	files := []File{{Path: exactFile(in.Site.Name), Text: text, Mode: 0o600}}
	if s.names.wildcard != "" {
		if text, err = s.configuration(s.wildcard); err != nil {
			return nil, err
		}
		files = append(files, File{Path: wildcardFile(in.Site.Name), Text: text, Mode: 0o600})
	}
	if in.Suspended {
		return files, nil
	}
	files = append(files, sharedFiles(in, s.pages, s.protections)...)
	pool, err := fpmPool(in)
	if err != nil {
		return nil, err
	}
	return append(files, pool...), nil
}

// configuration is the sealed text of what write writes.
func (s *apacheSite) configuration(write func()) ([]byte, error) {
	s.apacheConf = apacheConf{text: make([]byte, 0, 2048)}
	write()
	text, err := s.done()
	if err != nil {
		return nil, err
	}
	setTokens(s.in.Generation, text)
	return sealed("#", s.in.Generation, text), nil
}

// exact writes the virtual hosts of all names but the wildcard. Of two hosts with
// one name the first answers, so the order decides; both have the site's own name
// as their server name, which is what logs are split by.
func (s *apacheSite) exact() {
	name, serve := s.in.Site.Name, s.names.serve
	if s.in.Suspended {
		serve, s.names.redirect = append(serve, s.names.redirect...), nil
	}
	redirectsName := slices.Contains(s.names.redirect, name)
	if redirectsName {
		s.canonical()
	}
	s.begin(sVirtualHost, value(s.in.Layout.Listen))
	s.from("name")
	s.put(dServerName, value(name))
	s.from("aliases")
	s.list(dServerAlias, nil, words(slices.DeleteFunc(slices.Clone(serve), func(n string) bool { return n == name })))
	s.body()
	s.end()
	if len(s.names.redirect) > 0 && !redirectsName {
		s.canonical()
	}
}

// canonical writes the virtual host of the name that is sent on. It is a host of
// its own because mod_alias hands paths on undamaged, which a rewrite rule with a
// back-reference does not (it refuses encoded question marks).
func (s *apacheSite) canonical() {
	status := cmp.Or(s.in.Site.CanonicalStatus, 307)
	s.begin(sVirtualHost, value(s.in.Layout.Listen))
	s.from("name")
	s.put(dServerName, value(s.in.Site.Name))
	s.from("canonical")
	if redirect := s.names.redirect[0]; redirect != s.in.Site.Name {
		s.put(dServerAlias, value(redirect))
	}
	s.put(dRedirect, word("204"), word(tokenFolder+noToken))
	s.from("canonical_status")
	if !slices.Contains([]int{301, 302, 307, 308}, status) {
		s.refuse(strconv.Itoa(status), "must be 301, 302, 307 or 308")
	}
	s.put(dRedirect, number(status), word("/"), value(s.in.Layout.public(s.names.canonical)+"/"))
	s.logs()
	s.end()
}

// wildcard writes the virtual host of *.NAME. It has the site's name as well,
// for the logs: the file with the exact names comes before it.
func (s *apacheSite) wildcard() {
	s.begin(sVirtualHost, value(s.in.Layout.Listen))
	s.from("name")
	s.put(dServerName, value(s.in.Site.Name))
	s.from("wildcard")
	s.put(dServerAlias, value(s.names.wildcard))
	s.body()
	s.end()
}

func (s *apacheSite) body() {
	s.from("name")
	s.put(dRedirect, word("204"), word(tokenFolder+noToken))
	if s.in.Suspended {
		s.suspended()
		return
	}
	s.put(dDocumentRoot, value(s.in.DocumentRoot()))
	s.from("index")
	s.put(dDirectoryIndex, words(s.index)...)
	s.errorPages()
	s.redirects()
	s.scripts()
	s.headerLines()
	s.from("environment")
	for _, name := range s.environment {
		s.from("environment." + name)
		s.put(dSetEnv, value(name), value(s.in.Site.Environment[name]))
	}
	s.home()
	s.directory("root", s.in.DocumentRoot(), false)
	if s.in.Site.CGI {
		s.cgi()
	}
	s.protect()
	s.logs()
}

// suspended answers everything but our own paths with 503.
func (s *apacheSite) suspended() {
	s.put(dErrorDocument, word("503"), word(tokenFolder+"suspended.html"))
	s.put(dAlias, word(tokenFolder+"suspended.html"), value(s.in.Layout.Pages+"/suspended.html"))
	s.put(dRedirectMatch, word("503"), word(`^/(?!\.well-known/upkeep/)`))
	s.logs()
}

func (s *apacheSite) errorPages() {
	texts := false
	for _, page := range s.pages {
		s.from(page.field)
		if page.path != "" {
			s.put(dErrorDocument, value(page.code), value(page.path))
			continue
		}
		// Never as a message: Apache evaluates expressions in those, and one of the
		// functions of expressions reads files.
		s.put(dErrorDocument, value(page.code), value(page.uri))
		texts = true
	}
	if texts {
		s.put(dAlias, word(tokenFolder+"pages/"), value(s.in.Layout.Pages+"/"+shortName(s.in.Site.Name)+"/"))
	}
}

func (s *apacheSite) redirects() {
	engine := false
	for i, r := range s.in.Site.Redirects {
		field := "redirects[" + strconv.Itoa(i) + "]"
		status := cmp.Or(r.Status, 302)
		from, err := redirectOf(field, r)
		if err != nil {
			s.err = cmp.Or(s.err, err)
			return
		}
		s.from(field)
		switch {
		case r.Exact:
			if !engine {
				s.put(dRewriteEngine, word("On"))
				engine = true
			}
			s.exactRedirect(from, r.To, status)
		case status == 410:
			s.goneBelow(redirectBase(from))
		default:
			s.redirectBelow(redirectBase(from), r.To, status)
		}
	}
}

// redirectBelow is for a path and all below it. mod_alias joins the rest bare: both
// paths end in a slash, or neither does. The first that matches is taken.
func (s *apacheSite) redirectBelow(base, to string, status int) {
	if base == "" || strings.HasSuffix(to, "/") {
		s.put(dRedirect, number(status), value(base+"/"), value(strings.TrimSuffix(to, "/")+"/"))
	}
	if base != "" {
		s.put(dRedirect, number(status), value(base), value(to))
	}
}

// goneBelow is for a path that is gone, with all below it but the page that says so:
// Apache asks for that as for any other, and would find it gone.
func (s *apacheSite) goneBelow(base string) {
	own := ""
	for _, page := range s.pages {
		if page.code == "410" {
			own = page.uri
		}
	}
	if own != base && !strings.HasPrefix(own, base+"/") {
		s.put(dRedirect, word("410"), value(cmp.Or(base, "/")))
		return
	}
	below := regexp.QuoteMeta(base) + "(/|$)"
	s.put(dRedirectMatch, word("410"), value("^(?!"+regexp.QuoteMeta(own)+"$)"+below))
}

// substitution escapes what a rewrite rule replaces in its second argument:
// $1, %1, ${map:...}, %{VARIABLE}, and the backslash itself.
var substitution = strings.NewReplacer(`\`, `\\`, `$`, `\$`, `%`, `\%`)

// exactRedirect is a rewrite rule because Redirect takes all paths below its own
// and RedirectMatch encodes a target that is encoded already.
func (s *apacheSite) exactRedirect(from, to string, status int) {
	pattern := rewrite("^" + regexp.QuoteMeta(from) + "$")
	if status == 410 {
		s.put(dRewriteRule, pattern, word("-"), word("[G,L]"))
		return
	}
	if strings.HasPrefix(to, "/") {
		to = s.in.Layout.public(s.names.canonical) + to
	}
	s.put(dRewriteRule, pattern, rewrite(substitution.Replace(to)), rewrite("[R="+strconv.Itoa(status)+",L,NE]"))
}

// headerFormat escapes what mod_headers replaces in a value: %t, %D, %{X}e, and
// \n, which would begin a header of its own.
var headerFormat = strings.NewReplacer(`%`, `%%`, `\`, `\\`)

func (s *apacheSite) headerLines() {
	for _, name := range s.headers {
		s.from("headers." + name)
		text := s.in.Site.Headers[name]
		if rule := unquotable(value(text)); rule != "" {
			s.refuse(text, rule)
			return
		}
		// Headers of error answers are in a table of their own, and one that is in
		// both would be sent twice.
		s.put(dHeader, word("onsuccess"), word("unset"), value(name))
		if text == "" {
			s.put(dHeader, word("always"), word("unset"), value(name))
			continue
		}
		s.put(dHeader, word("always"), word("set"), value(name), value(headerFormat.Replace(text)))
	}
}

// home has links followed only to what belongs to their owner, in each part of a
// path below the homes: a customer can make the folder of a site a link, and the
// server's own configuration may let links be followed. It stands in the virtual
// host, since hand-made ones may serve other things from there.
func (s *apacheSite) home() {
	s.from("")
	s.begin(sDirectory, value(s.in.Layout.Home))
	s.put(dOptions, word("SymLinksIfOwnerMatch"))
	s.put(dAllowOverride, word("None"))
	s.put(dRequire, word("all"), word("denied"))
	s.end()
}

// directory writes who may see a folder. Require stands here and not in a
// Location, so that texts of error pages, which are elsewhere, are shown to
// those who are turned away.
func (s *apacheSite) directory(field, dir string, cgi bool) {
	s.from(field)
	s.begin(sDirectory, value(dir))
	if cgi {
		s.put(dOptions, word("ExecCGI"), word("SymLinksIfOwnerMatch"))
	} else {
		s.put(dOptions, word("SymLinksIfOwnerMatch"))
	}
	s.put(dAllowOverride, word("None"))
	// Files that people bring along from servers that read them, and that may hold
	// what is not for visitors.
	s.begin(sFilesMatch, word(`^\.ht`))
	s.put(dRequire, word("all"), word("denied"))
	s.end()
	s.begin(sRequireAll)
	s.from("methods")
	s.put(dRequire, append([]arg{word("method")}, words(s.methods)...)...)
	s.from("deny")
	s.list(dRequire, []arg{word("not"), word("ip")}, words(s.deny))
	s.from("allow")
	if len(s.allow) > 0 {
		s.begin(sRequireAny)
		s.list(dRequire, []arg{word("ip")}, words(s.allow))
		s.end()
	}
	s.end()
	if s.in.Site.PHP != nil && !cgi {
		s.from("php")
		s.begin(sFilesMatch, word(`\.php$`))
		s.put(dSetHandler, value("proxy:unix:"+s.in.Layout.Socket(s.in.Site.Name)+"|fcgi://"+s.in.Site.Name+"/"))
		s.end()
	}
	s.end()
}

// What is said where a module is not there without which programs would be shown and
// not run.
const (
	noCGI  fixed = "no module runs programs there; enable one, for example: a2enmod cgid"
	noFCGI fixed = "no module speaks with php-fpm there; enable it, for example: a2enmod proxy_fcgi"
)

// scripts refuses those of PHP where that is off. They hold what is not for visitors,
// and stay when it is turned off.
func (s *apacheSite) scripts() {
	s.from("php")
	paths := fixed(`\.php(/|$)`)
	if s.in.Site.CGI { // which runs programs, whatever they are called
		paths = `^/(?!cgi-bin/).*` + paths
	}
	if s.in.Site.PHP == nil {
		s.hide(paths)
		return
	}
	s.without(noFCGI, paths, "proxy_fcgi_module")
}

// hide refuses paths. A Require would not do: who was turned away is shown the page for
// that without being asked again, and it may be a script.
func (s *apacheSite) hide(paths fixed) { s.put(dRedirectMatch, word("403"), word(paths)) }

// without hides paths where none of some modules is there, be it one day: to an Apache
// without them programs are pages like any other. A test says so, and the site fails.
func (s *apacheSite) without(why, paths fixed, modules ...fixed) {
	for _, module := range modules {
		s.begin(sIfModule, word("!"+module))
	}
	s.hide(paths)
	s.begin(sIfDefine, word(DefineTest))
	s.put(dError, word(why))
	s.end()
	for range modules {
		s.end()
	}
}

func (s *apacheSite) cgi() {
	dir := s.in.SiteFolder() + "/cgi-bin"
	s.from("cgi")
	s.without(noCGI, `^/cgi-bin/`, "cgid_module", "cgi_module")
	s.put(dScriptAlias, word("/cgi-bin/"), value(dir+"/"))
	if !s.in.Layout.OneUser {
		// Programs run as the account's user or not at all: as the web server's they
		// could read every neighbour's files and speak to every neighbour's PHP. An
		// Apache without mod_suexec does not know the directive, and the site fails.
		id := "#" + strconv.Itoa(s.in.UID)
		s.put(dSuexecUserGroup, value(id), value(id))
	}
	s.directory("cgi", dir, true)
}

func (s *apacheSite) protect() {
	for i, p := range s.protections {
		s.from("protect[" + strconv.Itoa(i) + "]")
		s.begin(sLocation, value(p.path))
		s.put(dAuthType, word("Basic"))
		s.put(dAuthName, value(p.realm))
		s.put(dAuthBasicProvider, word("file"))
		s.put(dAuthUserFile, value(s.in.Layout.Place(p.file)))
		// Without And, the password would be all that is asked for here, and denied
		// addresses would be let in with it.
		s.put(dAuthMerging, word("And"))
		s.put(dRequire, word("valid-user"))
		s.end()
	}
	if len(s.protections) > 0 {
		s.begin(sLocation, word(tokenFolder))
		s.put(dAuthMerging, word("Off"))
		s.put(dRequire, word("all"), word("granted"))
		s.end()
	}
}

// logs names the log files, for servers on which each site has its own.
func (s *apacheSite) logs() {
	s.from("name")
	folder := s.in.Layout.LogFolder(s.in.Site.Name)
	s.begin(sIfDefine, word("!"+definePiped))
	s.put(dErrorLog, value(folder+"/error.log"))
	s.put(dCustomLog, value(folder+"/access.log"), word(logNickname))
	s.end()
	s.begin(sIfDefine, word(definePiped))
	s.put(dErrorLog, word("${"+defineErrors+"}"))
	s.put(dErrorLogFormat, word(errorFormat))
	s.end()
}

// Probes finds the paths that only these files answer.
func (Apache) Probes(files []File) []Probe {
	var probes []Probe
	for _, f := range files {
		if !strings.HasPrefix(f.Path, FolderSites+"/") {
			continue
		}
		if host := probeHost(f.Text); host != "" {
			probes = append(probes, Probe{host, tokenPath(f.Text)})
		}
	}
	return probes
}

// probeHost is a name that the file answers and no other: its first server name
// or, for a wildcard, a name below it that nobody has.
func probeHost(text []byte) string {
	if wild := quotedAfter(text, "ServerAlias *."); wild != "" {
		return "upkeep-" + strings.TrimPrefix(tokenPath(text), tokenFolder)[:16] + "." + wild
	}
	return quotedAfter(text, "ServerName ")
}

func quotedAfter(text []byte, start string) string {
	i := bytes.Index(text, []byte(start))
	if i < 0 {
		return ""
	}
	line, _, _ := bytes.Cut(text[i+len(start):], []byte("\n"))
	return string(line)
}

// apacheFields says which field a directive is made from.
var apacheFields = []struct {
	start string
	field string
}{
	{"ServerAlias *.", "wildcard"}, {"ServerAlias ", "aliases"}, {"ServerName ", "name"}, {"DocumentRoot ", "root"}, {"DirectoryIndex ", "index"},
	{"ErrorDocument ", "error_pages"}, {"Rewrite", "redirects"}, {"Redirect 204 " + tokenFolder, ""}, {"RedirectMatch 403", "php"}, {"Redirect", "redirects"}, {"Header ", "headers"}, {"SetEnv ", "environment"},
	{"Require method", "methods"}, {"Require not ip", "deny"}, {"Require ip", "allow"}, {"Require valid-user", "protect"}, {"Auth", "protect"}, {"<Location", "protect"},
	{`Error "no module runs`, "cgi"}, {`Error "no module speaks`, "php"}, {"ScriptAlias", "cgi"}, {"Suexec", "cgi"}, {"Options ExecCGI", "cgi"}, {"SetHandler", "php"}, {"<FilesMatch", "php"},
}

// Field implements [Renderer] by what stands on the line.
func (Apache) Field(text []byte, line int) string {
	for l := range bytes.Lines(text) {
		if line--; line > 0 {
			continue
		}
		l = bytes.TrimSpace(l)
		for _, f := range apacheFields {
			if bytes.HasPrefix(l, []byte(f.start)) {
				return f.field
			}
		}
		break
	}
	return ""
}

var _ Renderer = Apache{}
