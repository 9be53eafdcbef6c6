// Package failover makes decisions of probe results: [Detector] turns the
// history of one target into a verdict, [Decide] turns the verdicts of a pool's
// members into the set of addresses to publish, and [Guard] says when the
// monitor itself is the one that is cut off and nothing should be removed.
//
// The package is pure: no clock, no I/O, no goroutine. Time comes in with each
// call, so that a decision can be replayed, and tested for years of simulated
// life. The mathematics is in docs/detection.md.
package failover
