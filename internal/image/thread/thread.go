// Package thread runs work that changes the thread that it runs on, and must have no
// other run there afterwards.
package thread

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Own begins work on a thread that ends with it, and that nothing else runs on. It is not
// the process's first thread, which cannot end: what was laid on that one would stay for
// as long as the process lives, and is what /proc shows of the process.
func Own(work func()) {
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if unix.Gettid() != os.Getpid() {
			work()
			return
		}
		defer runtime.UnlockOSThread()
		elsewhere := make(chan struct{})
		Own(func() {
			defer close(elsewhere)
			work()
		})
		<-elsewhere // so that the first thread is not had again
	}()
}
