package vhost

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// directive and section are the only ones that are ever written. They are types
// of their own, and constants, so that no value can become one.
type (
	directive string
	section   string
)

// The directives that upkeep writes.
const (
	dAlias             directive = "Alias"
	dAllowOverride     directive = "AllowOverride"
	dAuthBasicProvider directive = "AuthBasicProvider"
	dAuthMerging       directive = "AuthMerging"
	dAuthName          directive = "AuthName"
	dAuthType          directive = "AuthType"
	dAuthUserFile      directive = "AuthUserFile"
	dCustomLog         directive = "CustomLog"
	dDefine            directive = "Define"
	dDirectoryIndex    directive = "DirectoryIndex"
	dDocumentRoot      directive = "DocumentRoot"
	dError             directive = "Error"
	dErrorDocument     directive = "ErrorDocument"
	dErrorLog          directive = "ErrorLog"
	dErrorLogFormat    directive = "ErrorLogFormat"
	dForceType         directive = "ForceType"
	dGlobalLog         directive = "GlobalLog"
	dHeader            directive = "Header"
	dLogFormat         directive = "LogFormat"
	dOptions           directive = "Options"
	dRedirect          directive = "Redirect"
	dRedirectMatch     directive = "RedirectMatch"
	dRequire           directive = "Require"
	dRewriteEngine     directive = "RewriteEngine"
	dRewriteRule       directive = "RewriteRule"
	dScriptAlias       directive = "ScriptAlias"
	dServerAlias       directive = "ServerAlias"
	dServerName        directive = "ServerName"
	dSetEnv            directive = "SetEnv"
	dSetHandler        directive = "SetHandler"
	dSuexecUserGroup   directive = "SuexecUserGroup"
)

// The sections that upkeep opens.
const (
	sVirtualHost section = "VirtualHost"
	sDirectory   section = "Directory"
	sLocation    section = "Location"
	sFilesMatch  section = "FilesMatch"
	sRequireAll  section = "RequireAll"
	sRequireAny  section = "RequireAny"
	sIfDefine    section = "IfDefine"
	sIfModule    section = "IfModule"
)

// arg is one argument. It comes from one of the functions below, which say what
// is known of its text.
type arg struct {
	text  string
	fixed bool // written by us: expressions and variables in it are meant
	raw   bool // read by mod_rewrite's own parser
}

// fixed is text of this package. As an untyped constant it is the only thing
// that a string literal turns into by itself.
type fixed string

func word(text fixed) arg   { return arg{text: string(text), fixed: true} }
func value(text string) arg { return arg{text: text} }
func number(n int) arg      { return arg{text: strconv.Itoa(n), fixed: true} }

// rewrite is an argument of a rewrite rule. Those are not read as others are:
// quotes hold them together, and there is no escape within (parseargline in
// mod_rewrite.c), so a backslash stands for itself.
func rewrite(text string) arg { return arg{text: text, raw: true} }

func words(list []string) []arg {
	args := make([]arg, len(list))
	for i, text := range list {
		args[i] = value(text)
	}
	return args
}

// maxLine is the longest line written. Apache reads longer ones, but not without
// end ("Line too long"), and people do not.
const maxLine = 8190

// apacheConf writes Apache configuration. The first value that cannot be quoted
// makes all of it void: err is checked once, at the end.
type apacheConf struct {
	text  []byte
	open  []section
	field string // of the site, that values come from now
	err   error
}

// from says which field the following values come from.
func (c *apacheConf) from(field string) { c.field = field }

func (c *apacheConf) put(d directive, args ...arg) {
	start := c.indent()
	c.text = append(c.text, d...)
	c.args(args)
	c.endLine(start)
}

// list writes a directive once, or more often where one line would be too long.
func (c *apacheConf) list(d directive, first []arg, values []arg) {
	const most = 4096
	for len(values) > 0 {
		n, size := 0, 0
		for n < len(values) && (n == 0 || size+len(values[n].text) < most) {
			size += len(values[n].text) + 3
			n++
		}
		c.put(d, append(first[:len(first):len(first)], values[:n]...)...)
		values = values[n:]
	}
}

func (c *apacheConf) begin(s section, args ...arg) {
	start := c.indent()
	c.text = append(append(c.text, '<'), s...)
	c.args(args)
	c.text = append(c.text, '>')
	c.endLine(start)
	c.open = append(c.open, s)
}

func (c *apacheConf) end() {
	last := len(c.open) - 1
	s := c.open[last]
	c.open = c.open[:last]
	c.indent()
	c.text = append(append(append(c.text, "</"...), s...), ">\n"...)
}

func (c *apacheConf) indent() (start int) {
	start = len(c.text)
	for range c.open {
		c.text = append(c.text, '\t')
	}
	return start
}

func (c *apacheConf) endLine(start int) {
	if len(c.text)-start > maxLine {
		c.refuse("", "is too long to be written on one line")
	}
	c.text = append(c.text, '\n')
}

func (c *apacheConf) refuse(text, rule string) {
	if c.err == nil {
		c.err = refuse(c.field, text, rule)
	}
}

func (c *apacheConf) args(args []arg) {
	for _, a := range args {
		if rule := unquotable(a); rule != "" {
			c.refuse(a.text, rule)
			return
		}
		c.text = append(c.text, ' ')
		if a.raw {
			c.text = append(append(append(c.text, '"'), a.text...), '"')
			continue
		}
		c.text = appendQuoted(c.text, a.text)
	}
}

// appendQuoted writes text so that ap_getword_conf reads it back: in double
// quotes, with a backslash before each quote and each backslash. Inside quotes
// nothing else is special to it (server/util.c, substring_conf). Plain words go
// without quotes, which <IfDefine> and <IfModule> would take for part of a name.
func appendQuoted(to []byte, text string) []byte {
	if text != "" && only(text, "/.:*-_=@+|,!") {
		return append(to, text...)
	}
	to = append(to, '"')
	for i := range len(text) {
		if text[i] == '"' || text[i] == '\\' {
			to = append(to, '\\')
		}
		to = append(to, text[i])
	}
	return append(to, '"')
}

// unquotable says why a text can stand nowhere in the configuration; "" when it
// can. Control characters end lines or are dropped; ${NAME} is replaced in the
// whole line before anything looks at quotes, from Define and from root's own
// environment; %{...} is an expression to half of the directives, and one of its
// functions reads files; a backslash at the end of a line joins it with the next.
func unquotable(a arg) string {
	switch {
	case !utf8.ValidString(a.text):
		return "must be valid UTF-8"
	case strings.ContainsFunc(a.text, unicode.IsControl):
		return "must not contain line ends or other control characters"
	case a.fixed:
		return ""
	case strings.Contains(a.text, "${"):
		return "must not contain ${, which the web server replaces by a variable"
	case strings.Contains(a.text, "%{"):
		return "must not contain %{, which the web server reads as an expression"
	case strings.HasSuffix(a.text, `\`):
		return "must not end in a backslash"
	case a.raw && strings.Contains(a.text, `"`):
		return "must not contain a quote"
	case len(a.text) > maxLine:
		return "is too long to be written on one line"
	}
	return ""
}

// done returns the text.
func (c *apacheConf) done() ([]byte, error) {
	if c.err == nil && len(c.open) > 0 {
		c.err = fmt.Errorf("writing apache configuration: section %s is still open", c.open[len(c.open)-1])
	}
	return c.text, c.err
}
