// Package lazy has values that are made when they are first used, so that the start
// of a command does not pay for what it has no use for.
package lazy

import (
	"regexp"
	"sync"
)

// Regexp is [regexp.MustCompile], done at the first call of what it returns. The lint
// compiles every expression that is written out, as no start of a program does.
func Regexp(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}
