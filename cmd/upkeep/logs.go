package main

import (
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"upkeep/internal/weblog"
)

// newLogs is what a web server of many sites writes its logs to; it starts it
// itself.
func newLogs(a *app) *cobra.Command {
	var o weblog.Options
	var level string
	var size int64
	c := &cobra.Command{
		Use:   "logs --dir FOLDER --file NAME",
		Short: "Split a web server's log by site, as the web server's own child",
		Long: `Read log lines that begin with the name of a site, and write each without it to
NAME in the folder of that site. Web servers with more sites than they can hold
log files open start this themselves, once for each kind of log; there is no
need to run it by hand. A file that was moved away is made anew within a second,
or at once on SIGHUP.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if !filepath.IsAbs(o.Dir) {
				return &usageError{err: errors.New("--dir must be an absolute path")}
			}
			if o.File == "" || filepath.Base(o.File) != o.File {
				return &usageError{err: errors.New("--file must be the name of a file, without a folder")}
			}
			log, err := a.logger(level)
			if err != nil {
				return err
			}
			o.MaxSize, o.Logger = size<<20, log
			return weblog.Run(o, a.in)
		},
	}
	flags := c.Flags()
	flags.StringVar(&o.Dir, "dir", "", "`folder` that has a folder for each site")
	flags.StringVar(&o.File, "file", "", "`name` of the log in it, such as access.log")
	flags.IntVar(&o.MaxOpen, "max-open", 256, "`files` that are open at a time")
	flags.Int64Var(&size, "max-size", 0, "rotate a file that reaches this many `MiB`; 0 leaves that to logrotate")
	flags.IntVar(&o.Keep, "keep", 5, "how many rotated `files` are kept")
	flags.StringVar(&level, "log", "warn", "log messages of this `LEVEL` and above to standard error")
	return c
}
