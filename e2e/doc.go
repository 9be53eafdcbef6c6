// Package e2e holds the tests of the whole system: the program as it is shipped,
// real name servers (BIND, NSD, Knot DNS) and members that fail in every way, on
// networks of namespaces of their own.
//
// Whatever a scenario does, three things must hold after it, and all the time in
// between for each name server that can be asked: the answers are right and never
// empty, serials only rise (RFC 1982), and what was declared is still there.
package e2e
