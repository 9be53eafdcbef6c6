// Package safefs works on files as root in trees that customers can change while
// it works.
//
// Everything is done through descriptors. A path is walked one name at a time
// from a folder that is root's, by openat2(2) with RESOLVE_BENEATH,
// RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS and, unless the root allows mounts,
// RESOLVE_NO_XDEV; what was opened is then looked at (type, owner, mode, links)
// and changed through that same descriptor. Nothing is ever changed by a path,
// recursively, or by a name that somebody else may have given another meaning in
// between.
//
// A folder is either ours or a tenant's. Ours is one that root owns (or the user
// that runs the process) and that nobody else may write to: the names in it mean
// what we made them mean. From the first folder on that belongs to a tenant,
// everything is done as that tenant, so that the worst that its owner can bring
// about is what its owner may do anyway.
//
// That is done by the file system identity of a thread (setfsuid(2), setfsgid(2),
// setgroups(2)) and not by a child process with the tenant's user id: it costs
// tens of microseconds where a process costs milliseconds, and the kernel asks the real
// and the saved user id, which stay root's, when the tenant wants to send signals
// to it or to trace it (kill(2), ptrace(2)). A child of the tenant's own would be
// the tenant's to stop or to take over. The thread is never used for anything
// else: it ends with the work. The Go runtime does not start other threads from
// one that is locked to a goroutine (runtime.newm uses its template thread).
//
// os.Root was turned down for this: it follows links that stay below it, which
// within one root changes another customer's files, it crosses mounts, and it
// hands out no owner to check. google/renameio writes by path.
package safefs
