package filesystem

import (
	"fmt"
	"slices"
	"strings"
)

// repairHint is what to do about a file system that is not in order.
const repairHint = "upkeep image check --repair repairs it, in a copy that takes the image's place once it is in order"

// RescueHint is what to do about one that cannot be repaired.
const RescueHint = "copy what can be read out of it into a new image: upkeep image copy OLD NEW"

// Verdict is what a check found.
type Verdict struct {
	// Clean is that nothing is to be repaired.
	Clean bool `json:"clean"`
	// Mended is that something was.
	Mended bool `json:"mended"`
	// Found is what the program said, for people.
	Found string `json:"found"`
	// Hint is what can be done where it is not clean.
	Hint string `json:"hint,omitempty"`
}

// Brief is the first of what was found, in a line, and how much more there is.
func (v Verdict) Brief() string {
	const most, longest = 5, 160
	var found []string
	for finding := range strings.SplitSeq(v.Found, "; ") {
		for _, start := range [...]string{"the image: ", "Comparing bitmaps.."} { // e2fsck -p, reiserfsck
			finding = strings.TrimPrefix(finding, start)
		}
		if finding == "" || aside(finding) {
			continue
		}
		if runes := []rune(finding); len(runes) > longest {
			finding = string(runes[:longest]) + "..."
		}
		found = append(found, finding)
	}
	if len(found) == 0 {
		return "its program does not say what"
	}
	if more := len(found) - most; more > 0 {
		found = append(found[:most], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(found, "; ")
}

// asides are how lines begin by which programs tell what they do, and not what they find.
var asides = []string{
	"Pass ", "*****", "RUN fsck MANUALLY", // e2fsck
	"Phase ", "- ", "Cannot get host filesystem geometry", "Repair may fail if there is a sector size mismatch", "the image and the host filesystem", "No modify flag set", // xfs_repair
	"###########", "Will ", "reiserfsck --", "reiserfsck finished", "Replaying journal: ", "Checking Semantic tree", "finished", // reiserfsck
	"Opening filesystem to check", "Checking filesystem on ", "UUID: ", "[", // btrfs check
	"Leaving filesystem unchanged", // fsck.vfat
}

// aside is that a line of a program's output is no finding.
func aside(line string) bool {
	return slices.ContainsFunc(asides, func(start string) bool { return strings.HasPrefix(line, start) }) || answered(line) ||
		strings.Contains(line, "% non-contiguous), ") || // with which e2fsck ends: how much is used
		strings.Contains(line, " files, ") && strings.HasSuffix(line, " clusters") // and fsck.vfat
}

// answered is that a line is nothing but a question that the program answered itself,
// such as "Fix? yes", about what it found in the line before.
func answered(line string) bool {
	question, yes := strings.CutSuffix(line, "? yes")
	question, no := strings.CutSuffix(question, "? no")
	return (yes || no) && !strings.ContainsAny(question, ".:0123456789")
}
