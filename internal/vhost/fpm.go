package vhost

import (
	"cmp"
	"fmt"
	"strconv"
)

// Limits of a site's php-fpm pool.
const (
	defaultChildren = 5
	maxChildren     = 200
	defaultMemory   = 128
	maxMemory       = 4096
)

// PingPath is what a pool answers with [Pong], to whoever may speak to its socket.
// No web server hands it on: it does not end in .php.
const (
	PingPath = "/upkeep-ping"
	Pong     = "pong"
)

// fpmPool makes the pool of a site that runs PHP: processes of the account's own
// user, started when there are requests. The socket is in a folder of root's and
// for the web server's group alone.
//
// The environment of the site is not here: the web server hands it on with each
// request, and the pool's file has no value of a person's but two numbers.
func fpmPool(in Input) ([]File, error) {
	php := in.Site.PHP
	if php == nil {
		return nil, nil
	}
	children, memory := cmp.Or(php.Children, defaultChildren), cmp.Or(php.Memory, defaultMemory)
	switch {
	case in.Layout.FPM == "":
		return nil, refuse("php", "on", "cannot be had on this server: its policy names no folder for php-fpm; take php out of the site, or give the policy the lines of web.php, which an agent needs for it (upkeep up has no PHP)")
	case children < 1 || children > maxChildren:
		return nil, refuse("php.children", strconv.Itoa(children), fmt.Sprintf("must be 1 to %d", maxChildren))
	case memory < 8 || memory > maxMemory:
		return nil, refuse("php.memory", strconv.Itoa(memory), fmt.Sprintf("must be 8 to %d", maxMemory))
	case in.UID < 1:
		return nil, fmt.Errorf("site %s: its account has no user id", in.Site.Name)
	}
	text := fmt.Appendf(nil, `[%s]
user = %d
group = %d
listen = %s
listen.mode = 0660
`, in.Site.Name, in.UID, in.UID, in.Layout.Socket(in.Site.Name))
	if in.Layout.Group >= 0 {
		text = fmt.Appendf(text, "listen.owner = 0\nlisten.group = %d\n", in.Layout.Group)
	}
	text = fmt.Appendf(text, `pm = ondemand
pm.max_children = %d
pm.process_idle_timeout = 10s
pm.max_requests = 1000
ping.path = `+PingPath+`
ping.response = `+Pong+`
chdir = /
catch_workers_output = no
clear_env = yes
security.limit_extensions = .php
php_admin_value[memory_limit] = %dM
php_admin_value[open_basedir] = %s:/tmp
php_admin_value[cgi.fix_pathinfo] = 0
php_admin_flag[allow_url_include] = off
`, children, memory, in.SiteFolder())
	return []File{{Path: poolFile(in.Site.Name), Text: sealed(";", in.Generation, text), Mode: 0o600}}, nil
}
