package rostertest

import "testing"

func TestMemory(t *testing.T) { Exercise(t, func(*testing.T) Roster { return NewMemory() }) }
