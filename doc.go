// Package upkeep is the glossary of the program: the plain types of what an
// operator declares (pools and zones), of what is observed of it, and the rules
// that declared things must obey.
//
// It imports the standard library only and does no I/O. Every other package
// imports it; it imports none of them.
package upkeep
