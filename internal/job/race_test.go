//go:build race

package job_test

// raceFactor is how much more everything costs under the race detector.
const raceFactor = 15
