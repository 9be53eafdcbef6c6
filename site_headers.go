package upkeep

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"upkeep/internal/lazy"
)

var (
	// siteHeader is a token of RFC 9110 section 5.6.2 without the signs that
	// configurations know.
	siteHeader = lazy.Regexp(`^[A-Za-z][A-Za-z0-9_-]{0,63}$`)
	// headerValue is a field value of RFC 9110 section 5.5: visible ASCII with
	// blanks between.
	headerValue = lazy.Regexp(`^[!-~]([ -~\t]*[!-~])?$`)
	environment = lazy.Regexp(`^[A-Z][A-Z0-9_]{0,63}$`)
)

// ownHeaders are the web server's to say: those of one connection (RFC 9110
// section 7.6.1), those that frame or describe the body, those that name the
// servers on the way, and those of its own authentication.
var ownHeaders = strings.Fields(`connection keep-alive proxy-connection te trailer transfer-encoding upgrade http2-settings
	content-length content-encoding content-range date status location server via
	proxy-authenticate proxy-authentication-info www-authenticate authentication-info`)

// maxFieldText is the longest value of a header or of the environment.
const maxFieldText = 4096

func (s Site) checkHeaders(r *rules) {
	if r.atMost("headers", len(s.Headers), MaxHeaders) {
		return
	}
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		at, value, lower := "headers."+name, s.Headers[name], strings.ToLower(name)
		switch {
		case !siteHeader().MatchString(name):
			r.add(at, name, "must be named by letters, digits, hyphens and underscores, beginning with a letter, at most 64")
		case slices.Contains(ownHeaders, lower):
			r.add(at, value, "is set by the web server itself")
		case seen[lower]:
			r.add(at, value, "is given twice; letters of headers are the same in either case")
		case value != "" && !headerValue().MatchString(value):
			r.add(at, value, "must be visible ASCII characters, with blanks only between them (RFC 9110 section 5.5)")
		default:
			r.fieldText(at, value)
		}
		seen[lower] = true
	}
}

// fieldText checks a value that stands in quotes in a web server's
// configuration.
func (r *rules) fieldText(field, value string) {
	switch {
	case len(value) > maxFieldText:
		r.add(field, value, "must be at most %d bytes", maxFieldText)
	case strings.ContainsAny(value, `\$`) || expands(value):
		r.add(field, value, `must not hold a backslash, $ or %%{, which web servers read more into`)
	}
}

// ownVariables are set by web servers for programs (RFC 3875 section 4.1, Apache
// and PHP manuals), or say how programs are run. A name that ends in * stands
// for all that begin so: HTTP_* would pretend headers of the request, PHP* takes
// the place of php.ini, and with it of the limits that keep sites apart.
var ownVariables = strings.Fields(`AUTH_TYPE CONTENT_LENGTH CONTENT_TYPE GATEWAY_INTERFACE PATH_INFO PATH_TRANSLATED QUERY_STRING REMOTE_*
	REQUEST_* SCRIPT_* SERVER_* HTTP_* HTTPS DOCUMENT_* CONTEXT_* REDIRECT_* UNIQUE_ID SSL_* FCGI_* PHP* UPKEEP_*
	PATH LD_* GCONV_PATH IFS SHELL HOME USER LOGNAME BASH_ENV ENV TMPDIR TZDIR LOCPATH NLSPATH MALLOC_* GLIBC_*`)

func (s Site) checkEnvironment(r *rules) {
	if r.atMost("environment", len(s.Environment), MaxEnvironment) {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(s.Environment)) {
		at, value := "environment."+name, s.Environment[name]
		switch {
		case !environment().MatchString(name):
			r.add(at, name, "must be named by upper-case letters, digits and underscores, beginning with a letter, at most 64")
		case ownVariable(name):
			r.add(at, value, "is set by the web server itself, or says how programs are run")
		case hasControl(value) || !utf8.ValidString(value):
			r.add(at, value, "must be text without control characters")
		default:
			r.fieldText(at, value)
		}
	}
}

func ownVariable(name string) bool {
	return slices.ContainsFunc(ownVariables, func(own string) bool {
		prefix, open := strings.CutSuffix(own, "*")
		return name == own || open && strings.HasPrefix(name, prefix)
	})
}
