// Package selftest proves on a machine, rather than promises, what a hosted
// customer cannot do. A throw-away tenant tries every attack that the rivals of
// upkeep have fallen to, and every trap of Apache that was measured, against a
// running control, agent and web server that are started for the purpose. The
// attacks are real: the same calls, the same bytes, the same user ids.
//
// An attack is one [Attack] in the table of its family, a file of its own. It
// returns what it brought about that it must not; and after each one, whatever it
// was, the neighbours must have answered all the while, and nothing may have
// changed that is not the tenant's: see [Run].
//
// What is attacked is a [Panel], so that a test can put a careless one in its
// place and see that the attacks come through: a kit that cannot fail proves
// nothing.
package selftest
