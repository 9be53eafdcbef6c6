package zone

import (
	"strings"
	"testing"
	"time"
)

// Somebody takes the include line out of the zone file and reloads: the serial of
// the files is served, with other content. It is said what is wrong, and when the
// line is back the zone is loaded again, although no file of upkeep's differs.
func TestBindDrift(t *testing.T) {
	now := time.Now()
	lab := newBindLab(t, bindSetup{bind: BindOptions{Now: func() time.Time { return now }}})
	serial := lab.publish(t, "192.0.2.1", "192.0.2.2")
	without := ""
	for line := range strings.Lines(includedZone) {
		if !strings.Contains(line, IPsInclude) {
			without += line
		}
	}
	lab.Write(t, "db.example.test", without+"www IN A 9.9.9.9\n")
	lab.Control(t, "reload", "example.test")
	if got := lab.served(t); got != serial {
		t.Fatalf("named serves serial %d, want %d: the trap is not set", got, serial)
	}
	content := lab.content("192.0.2.1", "192.0.2.2")
	if _, err := lab.pub.Publish(t.Context(), content); err != nil {
		t.Fatalf("what may be a moment's lag is an error: %v", err)
	}
	for range 2 { // it goes on being said
		now = now.Add(driftDoubt)
		lab.refused(t, content, "ips.include", lab.Path("db.example.test"))
	}
	lab.Write(t, "db.example.test", includedZone)
	now = now.Add(driftDoubt)
	if again := lab.publish(t, "192.0.2.1", "192.0.2.2"); !SerialLess(serial, again) {
		t.Errorf("serial %d after %d: secondaries would not follow", again, serial)
	}

	// With a record of the operator's own in the way, loading does not help: it is
	// not done over and over.
	lab.Write(t, "db.example.test", includedZone+"@ IN A 9.9.9.9\n")
	lab.Control(t, "reload", "example.test")
	loads := map[uint32]bool{}
	for range 60 {
		now = now.Add(10 * time.Second)
		serial, err := lab.pub.Publish(t.Context(), content)
		if err != nil {
			t.Fatal(err)
		}
		loads[serial] = true
	}
	if len(loads) < 2 || len(loads) > 7 {
		t.Errorf("loaded %d times in ten minutes", len(loads)-1)
	}
}
