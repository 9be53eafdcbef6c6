package policy

import (
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
)

// Web servers that sites are written for.
const (
	Apache = "apache"
	Nginx  = "nginx"
)

// Web says where the configuration of sites is written and how the web server
// is told of it. All folders are upkeep's own: nobody else writes there.
type Web struct {
	// Server is apache or nginx.
	Server string `json:"server"`
	// Include is the folder whose *.conf files the web server reads. Its own
	// configuration needs one line for it.
	Include string `json:"include"`
	// Data holds what configuration files refer to: texts of error pages,
	// password files; /var/lib/upkeep/web when left out.
	Data string `json:"data,omitempty"`
	// Logs has a folder for each site; /var/log/upkeep/sites when left out.
	Logs string `json:"logs,omitempty"`
	// PHP is the php-fpm that has the pools of sites; there is no PHP without it.
	PHP *PHP `json:"php,omitempty"`
	// Listen is the address and port of virtual hosts as the web server's own
	// configuration has them; "*:80" when left out.
	Listen string `json:"listen,omitempty"`
	// URL is where the server is asked whether it serves a site, on this
	// machine; http://127.0.0.1:80 when left out.
	URL string `json:"url,omitempty"`
	// Scheme and Port are how visitors reach the sites, where that is not http on
	// the port of Listen: redirects are made with them.
	Scheme string `json:"scheme,omitempty"`
	Port   int    `json:"port,omitempty"`
	// Program is the server's own, Config its main configuration, which has the
	// line that includes Include, and PIDFile where it writes its process id.
	// They are those of Debian when left out.
	Program string `json:"program,omitempty"`
	Config  string `json:"config,omitempty"`
	PIDFile string `json:"pid_file,omitempty"`
	// PipeAbove is the number of sites from which on logs go through one program
	// that splits them, because each log file costs the server a descriptor; 2000
	// when left out.
	PipeAbove int `json:"pipe_above,omitempty"`
}

// PHP is a php-fpm whose main configuration includes a folder of upkeep's own.
type PHP struct {
	// Pools is that folder, Sockets what the pools listen in.
	Pools   string `json:"pools"`
	Sockets string `json:"sockets"`
	// Program is such as /usr/sbin/php-fpm8.2.
	Program string `json:"program"`
	Config  string `json:"config"`
	PIDFile string `json:"pid_file"`
}

func (w Web) withDefaults() Web {
	def := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	def(&w.Data, "/var/lib/upkeep/web")
	def(&w.Logs, "/var/log/upkeep/sites")
	def(&w.Listen, "*:80")
	def(&w.URL, "http://127.0.0.1:80")
	if w.Server == Nginx {
		def(&w.Program, "/usr/sbin/nginx")
		def(&w.Config, "/etc/nginx/nginx.conf")
		def(&w.PIDFile, "/run/nginx.pid")
	} else {
		def(&w.Program, "/usr/sbin/apache2")
		def(&w.Config, "/etc/apache2/apache2.conf")
		def(&w.PIDFile, "/run/apache2/apache2.pid")
	}
	if w.PipeAbove == 0 {
		w.PipeAbove = 2000
	}
	return w
}

func (b *broken) web(p Policy) {
	w := p.Web
	if !slices.Contains([]string{Apache, Nginx}, w.Server) {
		b.add("web.server", w.Server, "must be %s or %s", Apache, Nginx)
	}
	if w.Include == "" {
		b.add("web.include", "", "is required: a folder of upkeep's own that the web server includes")
	}
	paths := map[string]string{"include": w.Include, "data": w.Data, "logs": w.Logs, "program": w.Program, "config": w.Config, "pid_file": w.PIDFile}
	if w.PHP != nil {
		paths["php.pools"], paths["php.sockets"], paths["php.program"] = w.PHP.Pools, w.PHP.Sockets, w.PHP.Program
		paths["php.config"], paths["php.pid_file"] = w.PHP.Config, w.PHP.PIDFile
	}
	for _, field := range slices.Sorted(maps.Keys(paths)) {
		if path := paths[field]; (path != "" || strings.HasPrefix(field, "php.")) && b.folder("web."+field, path) {
			b.outsideRoots("web."+field, path, p)
		}
	}
	if u, err := url.Parse(w.URL); w.URL != "" && (err != nil || u.Scheme != "http" || u.Port() == "" || u.Path != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		b.add("web.url", w.URL, "must be http:// with an address and a port of this machine, and nothing else")
	}
	if host, port, err := net.SplitHostPort(w.Listen); w.Listen != "" && (err != nil || port == "" || strings.ContainsFunc(host+port, notAddress)) {
		b.add("web.listen", w.Listen, "must be an address and a port such as *:80")
	}
	if w.Scheme != "" && w.Scheme != "http" && w.Scheme != "https" {
		b.add("web.scheme", w.Scheme, "must be http or https")
	}
	if w.Port < 0 || w.Port > 65535 {
		b.add("web.port", "", "must be 1 to 65535")
	}
	if w.PipeAbove < 0 {
		b.add("web.pipe_above", "", "must be a number of sites")
	}
}

func notAddress(c rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF.:*", c) }
