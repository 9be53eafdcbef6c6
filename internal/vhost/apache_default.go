package vhost

import (
	"fmt"
	"path/filepath"

	"upkeep"
)

// What logs have in each line. Where one pipe takes the lines of all sites, the
// name of the site goes before it. Apache escapes what clients put in.
const (
	accessFormat fixed = `%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"`
	errorFormat  fixed = `%v [%{u}t] [%-m:%l] [pid %P] %7F: %E: [client\ %a] %M% ,\ referer\ %{Referer}i`
)

// UnknownHost is the server name of what answers names that no site has.
const UnknownHost = "unknown-host." + upkeep.OwnDomain

const suspendedPage = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Suspended</title></head>
<body><h1>This site is suspended</h1><p>Its owner or the operator can say more.</p></body></html>
`

// Default makes the file that is read before all sites: where logs go, and a virtual host that answers 421 (RFC 9110 section 15.5.20) for
// names that no site has, instead of whichever site comes first.
func (Apache) Default(l Layout) ([]File, error) {
	c := &apacheConf{}
	c.put(dLogFormat, word(accessFormat), word(logNickname))
	if l.Piped {
		if err := c.pipes(l); err != nil {
			return nil, err
		}
	}
	c.begin(sDirectory, value(l.Pages))
	c.put(dOptions, word("None"))
	c.put(dAllowOverride, word("None"))
	c.put(dRequire, word("all"), word("granted"))
	for _, form := range []struct{ files, mime fixed }{{`\.txt$`, "text/plain; charset=utf-8"}, {`\.html$`, "text/html; charset=utf-8"}} {
		c.begin(sFilesMatch, word(form.files))
		c.put(dForceType, word(form.mime))
		c.end()
	}
	c.end()
	c.begin(sVirtualHost, value(l.Listen))
	c.put(dServerName, word(UnknownHost))
	c.put(dRedirect, word("204"), word(tokenFolder+noToken))
	c.put(dRedirect, word("421"), word("/"))
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

// pipes has two processes take the lines of all sites: one the requests of every
// virtual host, one the errors of those that are told to use it.
func (c *apacheConf) pipes(l Layout) error {
	for _, part := range l.Pipe {
		if !only(part, "/._-=@+") || part == "" {
			return fmt.Errorf("the command that splits logs: %q has more than letters, digits and / . _ - = @ +", part)
		}
	}
	if len(l.Pipe) == 0 || !filepath.IsAbs(l.Pipe[0]) {
		return fmt.Errorf("the command that splits logs must be given with its absolute path")
	}
	// Two bars: started directly, never through a shell.
	c.put(dDefine, word(definePiped))
	c.put(dDefine, word(defineErrors), value("||"+join(l.Pipe, "--file=error.log")))
	c.put(dGlobalLog, value("||"+join(l.Pipe, "--file=access.log")), word("%v "+accessFormat))
	return nil
}

func join(argv []string, last string) string {
	text := ""
	for _, part := range argv {
		text += part + " "
	}
	return text + last
}
