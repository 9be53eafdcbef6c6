package vhost

import (
	"bytes"
	"cmp"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Nginx makes configuration for nginx 1.18 or newer. It has no CGI, and takes no
// header of an answer away; sites that ask for these are refused.
type Nginx struct{}

// nginxSite is a site on its way into a file.
type nginxSite struct {
	nginxConf
	site *checked
}

// Site implements [Renderer].
func (Nginx) Site(in Input) ([]File, error) {
	site, err := check(in)
	if err != nil {
		return nil, err
	}
	s := &nginxSite{site: site}
	s.text = make([]byte, 0, 2048)
	s.servers()
	text, err := s.done()
	if err != nil {
		return nil, err
	}
	setTokens(in.Generation, text)
	files := []File{{Path: exactFile(in.Site.Name), Text: sealed("#", in.Generation, text), Mode: 0o600}}
	if in.Suspended {
		return files, nil
	}
	pool, err := fpmPool(in)
	if err != nil {
		return nil, err
	}
	return append(append(files, sharedFiles(in, site.pages, site.protections)...), pool...), nil
}

func (s *nginxSite) servers() {
	n := s.site.names
	serve := n.serve
	if s.site.in.Suspended {
		serve, n.redirect = append(serve, n.redirect...), nil
	}
	if n.wildcard != "" {
		serve = append(serve, n.wildcard)
	}
	s.begin(nServer)
	s.put(nListen, value(s.site.in.Layout.Listen))
	s.names(serve)
	s.token()
	s.logs()
	if s.site.in.Suspended {
		s.suspended()
	} else {
		s.body()
	}
	s.end()
	if len(n.redirect) > 0 {
		s.canonical()
	}
}

// names writes server names in lines that are not too long.
func (s *nginxSite) names(list []string) {
	s.from("aliases")
	for part := range slices.Chunk(list, 10) {
		s.put(nServerName, words(part)...)
	}
}

func (s *nginxSite) token() {
	s.from("name")
	s.begin(nLocation, word("="), word(tokenFolder+noToken))
	s.put(nReturn, word("204"))
	s.end()
}

func (s *nginxSite) logs() {
	folder := s.site.in.Layout.LogFolder(s.site.in.Site.Name)
	s.put(nAccessLog, value(folder+"/access.log"))
	s.put(nErrorLog, value(folder+"/error.log"))
}

func (s *nginxSite) suspended() {
	s.put(nErrorPage, word("503"), word(tokenFolder+"suspended.html"))
	s.begin(nLocation, word("="), word(tokenFolder+"suspended.html"))
	s.put(nInternal)
	s.put(nDefaultType, word("text/html"))
	s.put(nAlias, value(s.site.in.Layout.Pages+"/suspended.html"))
	s.end()
	s.begin(nLocation, word("/"))
	s.put(nReturn, word("503"))
	s.end()
}

func (s *nginxSite) canonical() {
	in := s.site.in
	status := cmp.Or(in.Site.CanonicalStatus, 307)
	s.begin(nServer)
	s.put(nListen, value(in.Layout.Listen))
	s.from("canonical")
	s.put(nServerName, words(s.site.names.redirect)...)
	s.token()
	s.logs()
	s.from("canonical_status")
	if !slices.Contains([]int{301, 302, 307, 308}, status) {
		s.refuse(strconv.Itoa(status), "must be 301, 302, 307 or 308")
	}
	s.begin(nLocation, word("/"))
	// Names are checked, so this is text of ours.
	s.put(nReturn, number(status), word(fixed(in.Layout.public(s.site.names.canonical)+"$request_uri")))
	s.end()
	s.end()
}

func (s *nginxSite) body() {
	in := s.site.in
	if in.Site.CGI {
		s.from("cgi")
		s.refuse("true", "cannot be had on this server: nginx runs no CGI programs")
	}
	s.from("root")
	s.put(nRoot, value(in.DocumentRoot()))
	// For each part of a path below the homes.
	s.put(nSymlinks, word("if_not_owner"), value("from="+in.Layout.Home))
	s.put(nAutoindex, word("off"))
	s.from("index")
	s.put(nIndex, words(s.site.index)...)
	s.errorPages()
	s.redirects()
	s.headers()
	s.access()
	whole := s.protectWhole()
	s.begin(nLocation, word("/"))
	s.content()
	s.end()
	for i, p := range s.site.protections {
		if i == whole {
			continue
		}
		s.from("protect[" + strconv.Itoa(i) + "]")
		s.begin(nLocation, word("="), value(p.path))
		s.password(p)
		s.only(p.path)
		s.end()
		s.begin(nLocation, word("^~"), value(p.path+"/"))
		s.password(p)
		s.content()
		s.end()
	}
}

func (s *nginxSite) errorPages() {
	texts := false
	for _, page := range s.site.pages {
		s.from(page.field)
		texts = texts || page.path == ""
		s.put(nErrorPage, value(page.code), value(page.uri)) // which nginx does not decode
	}
	if !texts {
		return
	}
	s.begin(nLocation, word("^~"), word(tokenFolder+"pages/"))
	s.put(nAlias, value(s.site.in.Layout.Pages+"/"+shortName(s.site.in.Site.Name)+"/"))
	s.put(nAllow, word("all"))
	s.put(nAuthBasic, word("off"))
	s.begin(nTypes)
	s.put("text/html", word("html"))
	s.put("text/plain", word("txt"))
	s.end()
	s.end()
}

// redirects compare with the request as it was sent, not as it was decoded: what
// is decoded and put into an answer again can hold line ends.
//
// What is upkeep's own is left out: a redirect of all paths would take the one that
// proves the site, and the texts of error pages. So are error pages, to which nginx
// goes on with the request as it was sent: that of 410 would be gone itself.
func (s *nginxSite) redirects() {
	in := s.site.in
	if len(in.Site.Redirects) > 0 {
		s.from("redirects")
		s.begin(nIf, word("($uri"), word("~"), nginxRegex("^"+regexp.QuoteMeta(tokenFolder)), word(")"))
		s.put(nBreak)
		s.end()
		if len(s.site.pages) > 0 {
			s.begin(nIf, word("($status"), word("~"), nginxRegex("^[45]"), word(")"))
			s.put(nBreak)
			s.end()
		}
	}
	for i, r := range in.Site.Redirects {
		field := "redirects[" + strconv.Itoa(i) + "]"
		status := cmp.Or(r.Status, 302)
		from, err := redirectOf(field, r)
		if err != nil {
			s.err = cmp.Or(s.err, err)
			return
		}
		s.from(field)
		encoded := regexp.QuoteMeta((&url.URL{Path: redirectBase(from)}).EscapedPath())
		pattern := "^" + encoded + `(/[^?]*)?(\?.*)?$`
		rest := "$1"
		switch {
		case r.Exact:
			pattern, rest = "^"+regexp.QuoteMeta((&url.URL{Path: from}).EscapedPath())+`()(\?.*)?$`, ""
		case strings.HasSuffix(r.To, "/"): // which is the one that joins
			pattern = "^" + encoded + `(?:/([^?]*))?(\?.*)?$`
		}
		s.begin(nIf, word("($request_uri"), word("~"), nginxRegex(pattern), word(")"))
		if status == 410 {
			s.put(nReturn, word("410"))
			s.end()
			continue
		}
		to := r.To
		if strings.HasPrefix(to, "/") {
			to = in.Layout.public(s.site.names.canonical) + to
		}
		if !strings.Contains(to, "?") {
			rest += "$2"
		}
		if rule := unquotableNginx(value(to)); rule != "" {
			s.refuse(to, rule)
		}
		s.put(nReturn, number(status), arg{text: to + rest, fixed: true, raw: true})
		s.end()
	}
}

func (s *nginxSite) headers() {
	for _, name := range s.site.headers {
		s.from("headers." + name)
		text := s.site.in.Site.Headers[name]
		if text == "" {
			s.refuse(text, "cannot be taken away on this server: nginx only adds headers")
		}
		s.put(nAddHeader, value(name), value(text), word("always"))
	}
}

// access writes who may see the site: the first that matches decides.
func (s *nginxSite) access() {
	s.from("deny")
	for _, n := range s.site.deny {
		s.put(nDeny, value(n))
	}
	s.from("allow")
	for _, n := range s.site.allow {
		s.put(nAllow, value(n))
	}
	if len(s.site.allow) > 0 {
		s.put(nDeny, word("all"))
	}
}

// protectWhole asks for a password everywhere, and returns which protection that
// is; -1 when there is none.
func (s *nginxSite) protectWhole() int {
	i := slices.IndexFunc(s.site.protections, func(p protection) bool { return p.path == "/" })
	if i >= 0 {
		s.password(s.site.protections[i])
	}
	return i
}

func (s *nginxSite) password(p protection) {
	s.put(nAuthBasic, value(p.realm))
	s.put(nAuthBasicFile, value(s.site.in.Layout.Place(p.file)))
}

// content is what every location of the site has: the methods, what is not
// shown, and scripts.
func (s *nginxSite) content() {
	s.methods()
	// As in Apache: files that are for servers, and not for visitors.
	hidden := `/\.ht`
	if s.site.in.Site.PHP == nil {
		hidden += `|\.php$`
	}
	s.begin(nLocation, word("~"), arg{text: hidden, fixed: true, raw: true})
	s.put(nDeny, word("all"))
	s.end()
	if s.site.in.Site.PHP == nil {
		return
	}
	s.begin(nLocation, word("~"), arg{text: `\.php$`, fixed: true, raw: true})
	s.script()
	s.end()
}

// only is [nginxSite.content] for the location of one exact path: nginx takes no
// location inside such a one, so that what the path is has to be told here. Without
// it the text of a protected script would be handed out as it is.
func (s *nginxSite) only(path string) {
	switch {
	case strings.Contains(path, "/.ht"), s.site.in.Site.PHP == nil && strings.HasSuffix(path, ".php"):
		s.put(nDeny, word("all"))
	case strings.HasSuffix(path, ".php"):
		s.script()
	default:
		s.methods()
	}
}

// script is what a location has whose files PHP runs.
func (s *nginxSite) script() {
	in := s.site.in
	s.methods()
	s.from("php")
	s.put(nTryFiles, word("$uri"), word("=404"))
	for _, p := range fastcgiParams {
		s.put(nFastcgiParam, word(p[0]), word(p[1]))
	}
	for _, name := range s.site.environment {
		s.from("environment." + name)
		s.put(nFastcgiParam, value(name), value(in.Site.Environment[name]))
	}
	s.from("php")
	s.put(nFastcgiPass, value("unix:"+in.Layout.Socket(in.Site.Name)))
}

func (s *nginxSite) methods() {
	s.from("methods")
	s.begin(nLimitExcept, words(s.site.methods)...)
	s.put(nDeny, word("all"))
	s.end()
}

// fastcgiParams are those of RFC 3875, as Debian's fastcgi.conf has them.
var fastcgiParams = [][2]fixed{
	{"SCRIPT_FILENAME", "$document_root$fastcgi_script_name"}, {"QUERY_STRING", "$query_string"}, {"REQUEST_METHOD", "$request_method"},
	{"CONTENT_TYPE", "$content_type"}, {"CONTENT_LENGTH", "$content_length"}, {"SCRIPT_NAME", "$fastcgi_script_name"}, {"REQUEST_URI", "$request_uri"},
	{"DOCUMENT_URI", "$document_uri"}, {"DOCUMENT_ROOT", "$document_root"}, {"SERVER_PROTOCOL", "$server_protocol"}, {"REQUEST_SCHEME", "$scheme"},
	{"HTTPS", "$https"}, {"GATEWAY_INTERFACE", "CGI/1.1"}, {"SERVER_SOFTWARE", "nginx"}, {"REMOTE_ADDR", "$remote_addr"}, {"REMOTE_PORT", "$remote_port"},
	{"REMOTE_USER", "$remote_user"}, {"SERVER_ADDR", "$server_addr"}, {"SERVER_PORT", "$server_port"}, {"SERVER_NAME", "$server_name"}, {"REDIRECT_STATUS", "200"},
}

// Default implements [Renderer].
func (Nginx) Default(l Layout) ([]File, error) {
	if l.Piped {
		return nil, fmt.Errorf("nginx has no pipes for logs: each site has files of its own")
	}
	c := &nginxConf{}
	c.begin(nServer)
	c.put(nListen, value(l.Listen))
	c.put(nServerName, word(UnknownHost))
	c.begin(nLocation, word("="), word(tokenFolder+noToken))
	c.put(nReturn, word("204"))
	c.end()
	c.begin(nLocation, word("/"))
	c.put(nReturn, word("421"))
	c.end()
	c.end()
	text, err := c.done()
	if err != nil {
		return nil, fmt.Errorf("the policy's paths: %w", err)
	}
	setTokens(0, text)
	return []File{
		{Path: defaultFile, Text: sealed("#", 0, text), Mode: 0o600},
		{Path: FolderPages + "/suspended.html", Text: []byte(suspendedPage), Mode: 0o644},
	}, nil
}

// Probes implements [Renderer].
func (Nginx) Probes(files []File) []Probe {
	var probes []Probe
	for _, f := range files {
		if !strings.HasPrefix(f.Path, FolderSites+"/") {
			continue
		}
		names, _, _ := strings.Cut(quotedAfter(f.Text, "server_name "), ";")
		if host, _, _ := strings.Cut(names, " "); host != "" {
			probes = append(probes, Probe{host, tokenPath(f.Text)})
		}
	}
	return probes
}

// nginxFields says which field a directive is made from.
var nginxFields = []struct{ start, field string }{
	{"server_name", "aliases"}, {"root", "root"}, {"index", "index"}, {"error_page", "error_pages"}, {"if (", "redirects"}, {"return 3", "redirects"},
	{"add_header", "headers"}, {"fastcgi_param", "environment"}, {"fastcgi_pass", "php"}, {"limit_except", "methods"}, {"deny", "deny"}, {"allow", "allow"},
	{"auth_basic", "protect"}, {"location =", "protect"}, {"location ^~", "protect"},
}

// Field implements [Renderer].
func (Nginx) Field(text []byte, line int) string {
	for l := range bytes.Lines(text) {
		if line--; line > 0 {
			continue
		}
		l = bytes.TrimSpace(l)
		for _, f := range nginxFields {
			if bytes.HasPrefix(l, []byte(f.start)) && !bytes.Contains(l, []byte(tokenFolder)) {
				return f.field
			}
		}
		break
	}
	return ""
}

var _ Renderer = Nginx{}
