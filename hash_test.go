package upkeep_test

import (
	"strings"
	"testing"

	"upkeep"
)

func TestHashesAreHiddenAndToldApart(t *testing.T) {
	one := "$2y$05$Ud.N4/E1iXzGrcVFq9r0gux1iOuiN/Dm8UT7rCD3/x0B0DGOh0cfq"
	other := strings.Replace(one, "Ud", "Ue", 1)
	text := "ann: " + one + "\nbob: \"" + other + "\"\n"
	got := string(upkeep.HideHashes([]byte(text)))
	if want := "ann: " + upkeep.HiddenHash(one) + "\nbob: \"" + upkeep.HiddenHash(other) + "\"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if strings.Contains(got, "$2y$") || upkeep.HiddenHash(one) == upkeep.HiddenHash(other) {
		t.Errorf("got %q", got)
	}
}
