package policy

import (
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
	// FPM is the folder of pools of php-fpm, Sockets that of its sockets. Without
	// them there is no PHP.
	FPM     string `json:"fpm,omitempty"`
	Sockets string `json:"sockets,omitempty"`
	// Listen is the address and port of virtual hosts as the web server's own
	// configuration has them; "*:80" when left out.
	Listen string `json:"listen,omitempty"`
	// URL is where the server is asked whether it serves a site, on this
	// machine; http://127.0.0.1:80 when left out.
	URL string `json:"url,omitempty"`
	// Public is the beginning of every address as visitors see it: http:// or
	// https://, with a port where it is not the scheme's own. It is made of
	// Listen when left out.
	Public string `json:"public,omitempty"`
	// Program is the server's own program, Test the command that checks the
	// configuration, Reload the one that has it read gracefully. They are those
	// of Debian when left out.
	Program []string `json:"program,omitempty"`
	Test    []string `json:"test,omitempty"`
	Reload  []string `json:"reload,omitempty"`
	// PIDFile is where the web server keeps its process id.
	PIDFile string `json:"pid_file,omitempty"`
	// FPMTest and FPMReload do for php-fpm what Test and Reload do.
	FPMTest   []string `json:"fpm_test,omitempty"`
	FPMReload []string `json:"fpm_reload,omitempty"`
	// PipeAbove is the number of sites from which on logs go through one program
	// that splits them, because each log file costs the server a descriptor; 500
	// when left out.
	PipeAbove int `json:"pipe_above,omitempty"`
}

func (w Web) withDefaults() Web {
	def := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	argv := func(s *[]string, value ...string) {
		if len(*s) == 0 {
			*s = value
		}
	}
	def(&w.Data, "/var/lib/upkeep/web")
	def(&w.Logs, "/var/log/upkeep/sites")
	def(&w.Listen, "*:80")
	def(&w.URL, "http://127.0.0.1:80")
	if w.Server == Nginx {
		argv(&w.Program, "/usr/sbin/nginx")
		argv(&w.Test, "/usr/sbin/nginx", "-t", "-q")
		argv(&w.Reload, "/usr/sbin/nginx", "-s", "reload")
		def(&w.PIDFile, "/run/nginx.pid")
	} else {
		argv(&w.Program, "/usr/sbin/apache2")
		argv(&w.Test, "/usr/sbin/apache2ctl", "-t")
		argv(&w.Reload, "/usr/sbin/apache2ctl", "-k", "graceful")
		def(&w.PIDFile, "/run/apache2/apache2.pid")
	}
	if w.PipeAbove == 0 {
		w.PipeAbove = 500
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
	for _, one := range []struct{ field, path string }{
		{"include", w.Include}, {"data", w.Data}, {"logs", w.Logs}, {"fpm", w.FPM}, {"sockets", w.Sockets},
	} {
		if one.path != "" && b.folder("web."+one.field, one.path) {
			b.outsideRoots("web."+one.field, one.path, p)
		}
	}
	if (w.FPM == "") != (w.Sockets == "") {
		b.add("web.fpm", w.FPM, "goes with sockets: php-fpm needs both folders")
	}
	for field, argv := range map[string][]string{"program": w.Program, "test": w.Test, "reload": w.Reload, "fpm_test": w.FPMTest, "fpm_reload": w.FPMReload} {
		b.command("web."+field, argv)
	}
	for field, text := range map[string]string{"url": w.URL, "public": w.Public} {
		if text != "" && !strings.HasPrefix(text, "http://") && !strings.HasPrefix(text, "https://") {
			b.add("web."+field, text, "must begin with http:// or https://")
		}
	}
	if w.PipeAbove < 0 {
		b.add("web.pipe_above", "", "must be a number of sites")
	}
	if w.PIDFile != "" {
		b.folder("web.pid_file", w.PIDFile)
	}
}
