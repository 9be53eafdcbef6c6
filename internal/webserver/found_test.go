package webserver

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
	"upkeep/internal/testkit"
	"upkeep/internal/vhost"
)

// opened are the names of the files of a folder that are opened meanwhile.
func opened(t *testing.T, dir string, do func()) (names []string) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	do()
	events := make([]byte, 1<<20)
	n, err := unix.Read(fd, events)
	if err != nil && err != unix.EAGAIN {
		t.Fatal(err)
	}
	for events = events[:max(n, 0)]; len(events) >= unix.SizeofInotifyEvent; {
		length := int(binary.NativeEndian.Uint32(events[12:]))
		name := string(bytes.TrimRight(events[unix.SizeofInotifyEvent:][:length], "\x00"))
		if name != "" { // the folder itself
			names = append(names, name)
		}
		events = events[unix.SizeofInotifyEvent+length:]
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Files that nobody has touched since they were read are not read again, but by a
// verification; what is touched is noticed, however well that is hidden.
func TestUntouchedFilesAreNotRead(t *testing.T) {
	w := newWorld(t)
	inputs := w.inputs(0, 5)
	w.sync(inputs)
	testkit.Eventually(t, time.Minute, func() (bool, string) {
		names := opened(t, w.options.Layout.Include, func() { w.sync(inputs) })
		return len(names) == 0, fmt.Sprint(names)
	})
	if names := opened(t, w.options.Layout.Include, func() { w.Sync(t.Context(), inputs, true) }); len(names) < len(inputs) {
		t.Errorf("a verification has read %q", names)
	}
	path := w.confFile("s00003.test")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	after := bytes.Replace(before, []byte("s00003"), []byte("z00003"), 1)
	if err := os.WriteFile(path, after, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if report := w.sync(inputs); len(report.Drift) != 1 {
		t.Errorf("drift %v", report.Drift)
	}
	if text, err := os.ReadFile(path); err != nil || !bytes.Equal(text, before) {
		t.Errorf("what was edited is not mended: %v", err)
	}
}

// What is served as it is wanted is neither asked for nor made again, also after a
// restart: it is known by its key. What differs, or was touched, is.
func TestUnchangedSitesAreLeftOut(t *testing.T) {
	w := newWorld(t)
	var asked []string
	wanted := func(inputs ...vhost.Input) (all []Wanted) {
		for _, in := range inputs {
			all = append(all, Wanted{Name: in.Site.Name, Generation: in.Generation, Key: fmt.Sprint(in.Site), Input: func() (vhost.Input, error) {
				asked = append(asked, in.Site.Name)
				return in, nil
			}})
		}
		return all
	}
	inputs := []vhost.Input{w.input("a.test", 1), w.input("b.test", 1), w.input("c.test", 1)}
	bring := func(want ...string) {
		t.Helper()
		asked = nil
		report := w.Bring(t.Context(), wanted(inputs...))
		for _, in := range inputs {
			if r := report.Sites[in.Site.Name]; r.State != upkeep.JobDone || r.Generation != in.Generation || r.URL == "" {
				t.Errorf("%s: %+v, %v", in.Site.Name, r, report.Err)
			}
		}
		if len(report.Sites) != len(inputs) || !slices.Equal(asked, want) {
			t.Errorf("asked for %q, want %q; told of %d sites", asked, want, len(report.Sites))
		}
	}
	// One that was applied by itself is known too.
	if r := w.Apply(t.Context(), Request{Input: inputs[0], Key: fmt.Sprint(inputs[0].Site)}); r.State != upkeep.JobDone {
		t.Fatal(r.Err)
	}
	bring("b.test", "c.test")
	before := w.Stats()
	bring()
	w.reopen()
	bring()
	if after := w.Stats(); after.Writes != 0 || after.Reloads != 0 || after.FullTests > 1 {
		t.Errorf("%+v, and before %+v", after, before)
	}
	inputs[1].Site.Aliases, inputs[1].Generation = []string{"also-b.test"}, 2
	bring("b.test")
	w.write(w.confFile("c.test"), "# by hand\n", 0o600)
	bring("c.test")
	w.answers("c.test")
	texts := map[string][]byte{}
	for _, in := range inputs {
		path := w.confFile(in.Site.Name)
		text, err := os.ReadFile(path)
		if err := errors.Join(err, os.Remove(path)); err != nil {
			t.Fatal(err)
		}
		texts[path] = text
	}
	bring("a.test", "b.test", "c.test")
	for path, text := range texts {
		if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, text) {
			t.Errorf("%s did not come back as it was: %v", path, err)
		}
	}
	// Hand-made configuration takes a name of one.
	w.foreign.names["also-b.test"] = true
	asked = nil
	if report := w.Bring(t.Context(), wanted(inputs...)); report.Sites["b.test"].State != upkeep.JobFailed || !slices.Equal(asked, []string{"b.test"}) {
		t.Errorf("%+v, asked for %q", report.Sites["b.test"], asked)
	}
}
