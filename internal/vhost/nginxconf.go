package vhost

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ndirective are the directives of nginx that are ever written, blocks among
// them.
type ndirective string

// The directives that upkeep writes.
const (
	nAccessLog     ndirective = "access_log"
	nAddHeader     ndirective = "add_header"
	nAlias         ndirective = "alias"
	nAllow         ndirective = "allow"
	nAuthBasic     ndirective = "auth_basic"
	nAuthBasicFile ndirective = "auth_basic_user_file"
	nAutoindex     ndirective = "autoindex"
	nBreak         ndirective = "break"
	nDefaultType   ndirective = "default_type"
	nDeny          ndirective = "deny"
	nSymlinks      ndirective = "disable_symlinks"
	nErrorLog      ndirective = "error_log"
	nErrorPage     ndirective = "error_page"
	nFastcgiParam  ndirective = "fastcgi_param"
	nFastcgiPass   ndirective = "fastcgi_pass"
	nIf            ndirective = "if"
	nIndex         ndirective = "index"
	nInternal      ndirective = "internal"
	nLimitExcept   ndirective = "limit_except"
	nListen        ndirective = "listen"
	nLocation      ndirective = "location"
	nReturn        ndirective = "return"
	nRewrite       ndirective = "rewrite"
	nRoot          ndirective = "root"
	nServer        ndirective = "server"
	nServerName    ndirective = "server_name"
	nTypes         ndirective = "types"
	nTryFiles      ndirective = "try_files"
)

// nginxConf writes nginx configuration; see [apacheConf].
type nginxConf struct {
	text  []byte
	depth int
	field string
	err   error
}

func (c *nginxConf) from(field string) { c.field = field }

func (c *nginxConf) put(d ndirective, args ...arg) {
	c.line(d, args)
	c.text = append(c.text, ";\n"...)
}

// begin opens a block.
func (c *nginxConf) begin(d ndirective, args ...arg) {
	c.line(d, args)
	c.text = append(c.text, " {\n"...)
	c.depth++
}

func (c *nginxConf) end() {
	c.depth--
	c.indent()
	c.text = append(c.text, "}\n"...)
}

func (c *nginxConf) indent() {
	for range c.depth {
		c.text = append(c.text, '\t')
	}
}

func (c *nginxConf) line(d ndirective, args []arg) {
	c.indent()
	c.text = append(c.text, d...)
	for _, a := range args {
		if rule := unquotableNginx(a); rule != "" {
			c.refuse(a.text, rule)
			return
		}
		c.text = append(c.text, ' ')
		c.text = appendNginx(c.text, a)
	}
}

func (c *nginxConf) refuse(text, rule string) {
	if c.err == nil {
		c.err = refuse(c.field, text, rule)
	}
}

// appendNginx writes text so that ngx_conf_read_token reads it back: in double
// quotes, with a backslash before each quote and backslash. A backslash before
// any other sign would stay, except before t, r and n.
func appendNginx(to []byte, a arg) []byte {
	if a.fixed && !a.raw || !a.raw && a.text != "" && only(a.text, "/.:*-_=@+,") {
		return append(to, a.text...)
	}
	to = append(to, '"')
	for i := range len(a.text) {
		if a.text[i] == '"' || a.text[i] == '\\' {
			to = append(to, '\\')
		}
		to = append(to, a.text[i])
	}
	return append(to, '"')
}

// unquotableNginx says why a text can stand nowhere; "" when it can. A dollar
// begins a variable in most directives, and nothing escapes it.
func unquotableNginx(a arg) string {
	switch {
	case !utf8.ValidString(a.text):
		return "must be valid UTF-8"
	case strings.ContainsFunc(a.text, unicode.IsControl):
		return "must not contain line ends or other control characters"
	case a.fixed:
		return ""
	case !a.raw && strings.Contains(a.text, "$"):
		return "must not contain $, which nginx replaces by a variable"
	case strings.Contains(a.text, "%{"), strings.Contains(a.text, "${"):
		return "must not contain %{ or ${"
	case strings.HasSuffix(a.text, `\`):
		return "must not end in a backslash"
	case len(a.text) > maxNginx:
		return "is too long to be written on one line"
	}
	return ""
}

// maxNginx is below the 4096 bytes that a parameter may have (NGX_CONF_BUFFER).
const maxNginx = 3800

// nginxRegex is a pattern made of text that stands for itself.
func nginxRegex(text string) arg { return arg{text: text, raw: true} }

func (c *nginxConf) done() ([]byte, error) {
	if c.err == nil && c.depth > 0 {
		c.err = fmt.Errorf("writing nginx configuration: %s blocks are still open", strconv.Itoa(c.depth))
	}
	return c.text, c.err
}
