package vhost

import (
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"upkeep"
	"upkeep/internal/lazy"
)

// The checks here are what a renderer relies on, whoever validated before it.
// They are about the final bytes and come after all decoding.

// urlPath decodes a path of a site, such as "/a%20b". A web server compares it
// with what it has decoded itself.
func urlPath(field, text string) (string, error) {
	if !strings.HasPrefix(text, "/") {
		return "", refuse(field, text, "must begin with a slash")
	}
	decoded, err := url.PathUnescape(text)
	if err != nil || !utf8.ValidString(decoded) {
		return "", refuse(field, text, "must be the path of a URL: a % is followed by two hexadecimal digits")
	}
	// A folder may be named with its final slash.
	if clean := path.Clean(decoded); clean != strings.TrimSuffix(decoded, "/") && decoded != "/" {
		return "", refuse(field, text, "must be a plain path, without . and .. and empty parts")
	}
	// Apache takes these for patterns in <Location>, and a backslash for an escape.
	if strings.ContainsAny(decoded, `*?[]\`) {
		return "", refuse(field, text, `must not contain any of * ? [ ] \`)
	}
	return decoded, nil
}

// pagePath checks the path of an error page, which is given as it stands in a URL,
// and decodes it.
func pagePath(field, text string) (string, error) {
	decoded, err := urlPath(field, text)
	if err != nil {
		return "", err
	}
	if !only(text, "/._~@+,=:%-") {
		return "", refuse(field, text, "must be the path of a URL, with anything but letters, digits and / . _ ~ @ + , = : - written as %XX")
	}
	return decoded, nil
}

// target checks where a redirect leads.
func target(field, text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil, !only(text, "/._~@+,=:%-?#[]!$&'()*;"):
		return refuse(field, text, "must be a URL, with anything that has no place in one written as %XX")
	case strings.HasPrefix(text, "/") && !strings.HasPrefix(text, "//"):
		return nil
	case u.Scheme != "http" && u.Scheme != "https":
		return refuse(field, text, "must be an http or https URL, or a path that begins with a slash")
	case u.User != nil, u.Hostname() == "", !only(u.Hostname(), ".-:_"):
		return refuse(field, text, "must have a plain host name and no user name")
	}
	return nil
}

var redirectStatuses = []int{301, 302, 303, 307, 308}

// errorCodes are those that Apache knows; it refuses its whole configuration for
// another one.
var errorCodes = []string{
	"400", "401", "402", "403", "404", "405", "406", "407", "408", "409", "410", "411", "412", "413", "414", "415", "416", "417", "421", "422", "423", "424", "426", "428",
	"429", "431", "451", "500", "501", "502", "503", "504", "505", "506", "507", "508", "510", "511",
}

// maxPageText is the longest text of an error page, in bytes.
const maxPageText = 4096

// errorPage is one error page of a site.
type errorPage struct {
	code, field string
	path        string // a path of the site as it stands in a URL, or
	text        string // what is shown
	uri         string // the path that is asked for, decoded: that of the site, or of the text
}

// file is the name of the file with the text. What looks like a document is one.
func (p errorPage) file() string {
	if strings.HasPrefix(strings.TrimSpace(p.text), "<") {
		return p.code + ".html"
	}
	return p.code + ".txt"
}

func errorPages(s upkeep.Site) ([]errorPage, error) {
	var pages []errorPage
	for _, code := range slices.Sorted(maps.Keys(s.ErrorPages)) {
		page := errorPage{code: code, field: "error_pages." + code}
		given := s.ErrorPages[code]
		switch {
		case !slices.Contains(errorCodes, code):
			return nil, refuse("error_pages", code, "must be the code of an error, such as 404")
		case strings.HasPrefix(given, "/"):
			uri, err := pagePath(page.field, given)
			if err != nil {
				return nil, err
			}
			page.path, page.uri = given, uri
		case given == "" || len(given) > maxPageText || !utf8.ValidString(given):
			return nil, refuse(page.field, given, "must be a path that begins with a slash, or a text of at most "+strconv.Itoa(maxPageText)+" bytes of UTF-8")
		default:
			page.text = given
			page.uri = tokenFolder + "pages/" + page.file()
		}
		pages = append(pages, page)
	}
	return pages, nil
}

// methods are what sites may answer.
var methods = []string{
	"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS",
	"PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT",
}

func methodsOf(s upkeep.Site) ([]string, error) {
	if len(s.Methods) == 0 {
		return []string{"GET", "HEAD", "POST"}, nil
	}
	for _, m := range s.Methods {
		if !slices.Contains(methods, m) {
			return nil, refuse("methods", m, "must be one of "+strings.Join(methods, ", "))
		}
	}
	return s.Methods, nil
}

func indexOf(s upkeep.Site) ([]string, error) {
	if len(s.Index) == 0 && s.PHP != nil {
		return []string{"index.html", "index.php"}, nil
	}
	if len(s.Index) == 0 {
		return []string{"index.html"}, nil
	}
	for _, name := range s.Index {
		if !plainName(name) {
			return nil, refuse("index", name, "must be the name of a file, of letters, digits and . _ @ + -")
		}
	}
	return s.Index, nil
}

// token is a header field name (RFC 9110 section 5.1).
var token = lazy.Regexp("\\A[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}\\z")

// framing are headers that say how a message is cut out of a connection or that
// the server makes itself. Wrong ones confuse proxies that others share.
var framing = []string{
	"Connection", "Content-Length", "Date", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Server", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Via",
}

func headersOf(s upkeep.Site) ([]string, error) {
	sorted := slices.Sorted(maps.Keys(s.Headers))
	for _, name := range sorted {
		switch {
		case !token().MatchString(name):
			return nil, refuse("headers", name, "must be the name of a header, such as X-Frame-Options")
		case slices.Contains(framing, http.CanonicalHeaderKey(name)):
			return nil, refuse("headers", name, "is a header that the server sets itself")
		case len(s.Headers[name]) > 0 && strings.EqualFold(s.Headers[name][:min(5, len(s.Headers[name]))], "expr="):
			return nil, refuse("headers."+name, s.Headers[name], "must not begin with expr=, which the web server reads as an expression")
		}
	}
	return sorted, nil
}

var variable = lazy.Regexp(`\A[A-Z_][A-Z0-9_]{0,127}\z`)

// environment are variables that tell a program about the request (RFC 3875), or
// that change what runs rather than what it is told: PHP_ADMIN_VALUE sets any
// php.ini directive, LD_PRELOAD loads a library.
var environment = []string{
	"AUTH_TYPE", "CONTENT_LENGTH", "CONTENT_TYPE", "GATEWAY_INTERFACE", "PATH_INFO", "PATH_TRANSLATED", "QUERY_STRING", "REMOTE_ADDR", "REMOTE_HOST", "REMOTE_IDENT",
	"REMOTE_PORT", "REMOTE_USER", "REQUEST_METHOD", "REQUEST_SCHEME", "REQUEST_URI", "SCRIPT_NAME", "SCRIPT_FILENAME", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "SERVER_SOFTWARE",
	"SERVER_ADDR", "SERVER_ADMIN", "SERVER_SIGNATURE", "DOCUMENT_ROOT", "CONTEXT_DOCUMENT_ROOT", "CONTEXT_PREFIX", "HTTPS", "PATH", "IFS", "ENV", "BASH_ENV", "SHELLOPTS", "UPKEEP_PIPED",
}

var environmentPrefixes = []string{"HTTP_", "LD_", "PHP_", "FCGI_", "REDIRECT_", "SSL_", "BASH_FUNC_", "PERL5", "PYTHON", "RUBY", "GCONV_", "GLIBC_"}

func environmentOf(s upkeep.Site) ([]string, error) {
	sorted := slices.Sorted(maps.Keys(s.Environment))
	for _, name := range sorted {
		if !variable().MatchString(name) {
			return nil, refuse("environment", name, "must be the name of a variable: capital letters, digits and underscores")
		}
		if slices.Contains(environment, name) || slices.ContainsFunc(environmentPrefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
			return nil, refuse("environment", name, "is a variable that the web server sets, or that changes which code runs")
		}
	}
	return sorted, nil
}

var (
	authUser = lazy.Regexp(`\A[A-Za-z0-9._@+-]{1,64}\z`)
	authHash = lazy.Regexp(`\A\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}\z`)
	realm    = lazy.Regexp(`\A[A-Za-z0-9 .,:;!?()'_@+/-]{1,128}\z`)
)

// protection is what a site asks a password for.
type protection struct {
	path, realm, file string
	text              []byte // of the password file
}

func protectionsOf(s upkeep.Site) ([]protection, error) {
	var all []protection
	for i, p := range s.Protect {
		field := "protect[" + strconv.Itoa(i) + "]"
		decoded, err := urlPath(field+".path", p.Path)
		if err != nil {
			return nil, err
		}
		// "/p/" is "/p" and all below it: were it only what is below, a file of that
		// name, and not a folder, would stand open.
		if decoded != "/" {
			decoded = strings.TrimSuffix(decoded, "/")
		}
		one := protection{path: decoded, realm: p.Realm, file: FolderAuth + "/" + shortName(s.Name) + "/" + strconv.Itoa(i)}
		if one.realm == "" {
			one.realm = "restricted"
		}
		if !realm().MatchString(one.realm) {
			return nil, refuse(field+".realm", p.Realm, "must be plain text of at most 128 letters, digits and punctuation")
		}
		for _, user := range slices.Sorted(maps.Keys(p.Users)) {
			if !authUser().MatchString(user) {
				return nil, refuse(field+".users", user, "must be a user name of letters, digits and . _ @ + -")
			}
			if !authHash().MatchString(p.Users[user]) {
				return nil, refuse(field+".users."+user, "...", "must be a hash as htpasswd -B makes it")
			}
			one.text = append(one.text, user+":"+p.Users[user]+"\n"...)
		}
		if slices.ContainsFunc(all, func(p protection) bool { return p.path == one.path }) {
			return nil, refuse(field+".path", p.Path, "is protected twice")
		}
		all = append(all, one)
	}
	return all, nil
}

// networks are the texts of addresses; those of an unset one are refused.
func networks(field string, list []upkeep.Network) ([]string, error) {
	texts := make([]string, len(list))
	for i, n := range list {
		if !n.IsValid() || n.Addr().Zone() != "" {
			return nil, refuse(field, n.String(), "must be an address or a prefix")
		}
		texts[i] = n.String()
	}
	return texts, nil
}
