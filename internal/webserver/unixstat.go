package webserver

import "syscall"

// unixStat is what os.Lstat finds out on Linux.
type unixStat = syscall.Stat_t
