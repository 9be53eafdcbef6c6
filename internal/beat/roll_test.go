package beat

import (
	"bytes"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const ms = time.Millisecond

// pair is a sender and a receiver with their own clocks, and no network.
type pair struct {
	t       testing.TB
	now     time.Duration // the true time; the receiver's clock
	began   time.Duration // when the session began
	roll    *Roll
	c       Credential
	session *Session
	lost    bool // answers do not reach the sender
}

func newPair(t testing.TB) *pair {
	p := &pair{t: t, now: time.Hour, c: credential("192.0.2.1"), roll: NewRoll()}
	p.roll.SetKeys([]Credential{p.c})
	p.restartSender()
	return p
}

func (p *pair) restartSender() { p.session, p.began = NewSession(p.c, 100*ms), p.now }

func (p *pair) restartReceiver() {
	p.roll = NewRoll()
	p.roll.SetKeys([]Credential{p.c})
}

func (p *pair) make(health Health) []byte { return p.session.Beat(p.now-p.began, health) }

// send delivers a beat at once, and the answers to it, as far as they go.
func (p *pair) send(health Health) Heard {
	heard := p.roll.Receive(p.now, p.make(health))
	if heard.Reply != nil && !p.lost && p.session.Hear(heard.Reply) == BeatNow {
		again := p.roll.Receive(p.now, p.make(health))
		if heard.Outcome != Accepted {
			heard = again
		}
	}
	return heard
}

func (p *pair) expect(what string, got Heard, want Outcome) {
	p.t.Helper()
	if got.Outcome != want {
		p.t.Errorf("%s: got %s, want %s", what, got.Outcome, want)
	}
}

func TestFirstBeatIsChallengedThenAccepted(t *testing.T) {
	p := newPair(t)
	first := p.roll.Receive(p.now, p.make(Health{}))
	p.expect("first beat", first, Challenged)
	if len(first.Reply) != Size {
		t.Fatalf("challenge has %d bytes", len(first.Reply))
	}
	if got := p.session.Hear(first.Reply); got != BeatNow {
		t.Fatalf("sender made %d of the challenge", got)
	}
	second := p.roll.Receive(p.now, p.make(Health{}))
	p.expect("second beat", second, Accepted)
	if second.From != p.c || second.Interval != 100*ms || second.Reply != nil {
		t.Errorf("got %+v", second)
	}
	for range 500 {
		p.now += 100 * ms
		heard := p.send(Health{NotWell, CauseExit, 1})
		p.expect("later beat", heard, Accepted)
		if heard.Reply != nil || heard.Health != (Health{NotWell, CauseExit, 1}) {
			t.Fatalf("one way in the common case, but got %+v", heard)
		}
	}
}

func TestReplayInTheSameSession(t *testing.T) {
	p := newPair(t)
	p.send(Health{})
	var recorded [][]byte
	for range 20 {
		p.now += 100 * ms
		datagram := p.make(Health{})
		recorded = append(recorded, datagram)
		p.expect("beat", p.roll.Receive(p.now, datagram), Accepted)
		p.expect("its duplicate", p.roll.Receive(p.now, datagram), Replayed)
	}
	for range 100 { // the member has died
		p.now += 100 * ms
		for _, datagram := range recorded {
			p.expect("recorded beat", p.roll.Receive(p.now, datagram), Replayed)
		}
	}
}

func TestReorderedBeatsCountOnce(t *testing.T) {
	p := newPair(t)
	p.send(Health{})
	a, b := p.make(Health{}), p.make(Health{})
	p.expect("newer", p.roll.Receive(p.now, b), Accepted)
	p.expect("older", p.roll.Receive(p.now, a), Replayed)
}

// TestReplayAfterReceiverRestart is the attack that counters alone do not stop:
// the receiver that forgot them.
func TestReplayAfterReceiverRestart(t *testing.T) {
	p := newPair(t)
	hello := p.make(Health{}) // before any challenge
	p.send(Health{})
	recorded := [][]byte{hello}
	for range 50 {
		p.now += 100 * ms
		datagram := p.make(Health{})
		recorded = append(recorded, datagram)
		p.expect("beat", p.roll.Receive(p.now, datagram), Accepted)
	}
	p.restartReceiver()
	for _, datagram := range recorded {
		heard := p.roll.Receive(p.now, datagram)
		p.expect("recorded beat", heard, Challenged)
		if len(heard.Reply) > len(datagram) {
			t.Error("the answer is larger than the datagram")
		}
	}
	p.expect("the live member", p.send(Health{}), Accepted)
	for _, datagram := range recorded {
		if heard := p.roll.Receive(p.now, datagram); heard.Outcome == Accepted {
			t.Error("a recorded beat was accepted after the member came back")
		}
	}
}

func TestReplayAfterSenderRestart(t *testing.T) {
	p := newPair(t)
	p.send(Health{})
	var recorded [][]byte
	for range 50 {
		p.now += 100 * ms
		datagram := p.make(Health{})
		recorded = append(recorded, datagram)
		p.roll.Receive(p.now, datagram)
	}
	bye := p.make(Health{State: Goodbye})
	p.roll.Receive(p.now, bye)
	p.restartSender()
	p.expect("the new session", p.send(Health{}), Accepted)
	for _, datagram := range append(recorded, bye) {
		heard := p.roll.Receive(p.now, datagram)
		p.expect("beat of the old session", heard, Challenged)
		// The answer to a replay is no use to the live session, nor harm.
		if got := p.session.Hear(heard.Reply); got != Ignored {
			t.Errorf("the new session took the answer to an old one: %d", got)
		}
	}
	p.now += 100 * ms
	p.expect("the new session goes on", p.send(Health{}), Accepted)
}

// TestHeldBackBeats has somebody on the path hold every datagram back, so that
// beats go on coming in order after the member died.
func TestHeldBackBeats(t *testing.T) {
	for _, delay := range []time.Duration{ms, MaxAge / 2, MaxAge - ms, MaxAge + ms, 10 * time.Second, time.Hour} {
		p := newPair(t)
		p.send(Health{})
		for range 100 {
			p.now += 100 * ms
			datagram := p.make(Health{})
			heard := p.roll.Receive(p.now+delay, datagram)
			if fresh := delay <= MaxAge; (heard.Outcome == Accepted) != fresh {
				t.Fatalf("held back for %s: %s", delay, heard.Outcome)
			}
		}
	}
}

func TestOtherMembersKey(t *testing.T) {
	p := newPair(t)
	other := credential("192.0.2.2")
	p.roll.SetKeys([]Credential{p.c, other})
	p.expect("the member itself", p.send(Health{}), Accepted)
	// The thief has the key of 192.0.2.2 and beats as 192.0.2.1.
	thief := NewSession(Credential{ID: p.c.ID, Secret: other.Secret}, 100*ms)
	heard := p.roll.Receive(p.now, thief.Beat(0, Health{State: Goodbye}))
	p.expect("goodbye with another key", heard, Forged)
	if heard.Reply != nil {
		t.Error("a forged datagram was answered")
	}
	stranger := NewSession(credential("192.0.2.3"), 100*ms)
	p.expect("unknown member", p.roll.Receive(p.now, stranger.Beat(0, Health{})), Stranger)
}

func TestReceiversOwnDatagramsAreNoBeats(t *testing.T) {
	p := newPair(t)
	challenge := p.roll.Receive(p.now, p.make(Health{})).Reply
	p.expect("a challenge sent back", p.roll.Receive(p.now, challenge), Malformed)
	if got := p.session.Hear(p.make(Health{})); got != Ignored {
		t.Errorf("the sender took a beat for an answer: %d", got)
	}
}

func TestGoodbye(t *testing.T) {
	p := newPair(t)
	p.send(Health{})
	late := p.make(Health{}) // overtaken by the goodbye
	later := p.session
	heard := p.roll.Receive(p.now, p.make(Health{State: Goodbye}))
	p.expect("goodbye", heard, Accepted)
	if heard.Health.State != Goodbye || p.session.Hear(heard.Reply) != Dismissed {
		t.Errorf("the goodbye was not acknowledged: %+v", heard)
	}
	p.expect("beat from before", p.roll.Receive(p.now, late), Replayed)
	p.expect("beat of a session that is over", p.roll.Receive(p.now, later.Beat(p.now-p.began, Health{})), Replayed)
	again := p.roll.Receive(p.now, p.make(Health{State: Goodbye}))
	p.expect("second goodbye", again, Accepted)
	if again.Reply == nil {
		t.Error("the second goodbye was not acknowledged, though the first answer may be lost")
	}
}

func TestGoodbyeToARestartedReceiver(t *testing.T) {
	p := newPair(t)
	p.send(Health{})
	p.restartReceiver()
	if heard := p.send(Health{State: Goodbye}); heard.Outcome != Accepted || heard.Health.State != Goodbye {
		t.Errorf("got %+v", heard)
	}
}

func TestFarewellBeforeGoodbyeIsIgnored(t *testing.T) {
	p := newPair(t)
	p.send(Health{})
	beat := p.make(Health{})
	packet, err := p.session.key.Open(beat)
	if err != nil {
		t.Fatal(err)
	}
	farewell := p.session.key.Seal(Packet{Kind: KindFarewell, Member: packet.Member, Session: packet.Session, Counter: packet.Counter})
	if got := p.session.Hear(farewell); got != Ignored {
		t.Errorf("got %d", got)
	}
}

// TestRenewal runs for a day with all answers, then without any.
func TestRenewal(t *testing.T) {
	p := newPair(t)
	p.send(Health{})
	replies := 0
	for range 24 * 3600 {
		p.now += time.Second
		heard := p.send(Health{})
		p.expect("beat", heard, Accepted)
		if heard.Reply != nil {
			replies++
		}
	}
	if day := int(24 * time.Hour / renewAfter); replies < day*9/10 || replies > day {
		t.Errorf("%d answers in a day, want about one a minute", replies)
	}
	p.lost = true
	start := p.now
	for p.send(Health{}).Outcome == Accepted {
		p.now += time.Second
	}
	if got := p.now - start; got < nonceLife-2*renewAfter || got > nonceLife+time.Second {
		t.Errorf("without answers beats counted for %s", got)
	}
	p.lost = false
	p.expect("answers come again", p.send(Health{}), Accepted)
}

// TestClocks lets the sender's steady clock stand still (a machine that slept),
// jump ahead, and run fast and slow.
func TestClocks(t *testing.T) {
	p := newPair(t)
	p.send(Health{})
	p.now += 10 * time.Minute
	p.began += 10*time.Minute - time.Second // its clock stood still while it slept
	p.expect("after sleeping", p.send(Health{}), Accepted)
	p.began -= 30 * time.Second // jumped ahead
	p.expect("after a jump", p.send(Health{}), Accepted)
	for _, ppm := range []int64{500, -500} {
		for range 3600 {
			p.now += time.Second
			p.began += time.Duration(ppm) * time.Microsecond
			if heard := p.send(Health{}); heard.Outcome != Accepted {
				t.Fatalf("drift of %d ppm: %s", ppm, heard.Outcome)
			}
		}
	}
}

func TestRivals(t *testing.T) {
	p := newPair(t)
	p.send(Health{})
	first := p.session
	p.session = NewSession(p.c, 100*ms)
	if p.send(Health{}).Rivals {
		t.Error("a restart was taken for a rival")
	}
	second := p.session
	p.session = first
	if !p.send(Health{}).Rivals {
		t.Error("the first sender lives on, unnoticed")
	}
	p.session = second
	if !p.send(Health{}).Rivals {
		t.Error("the second sender lives on, unnoticed")
	}
}

func TestSetKeysKeepsSessions(t *testing.T) {
	p := newPair(t)
	p.send(Health{})
	p.roll.SetKeys([]Credential{p.c, credential("192.0.2.2")})
	p.expect("another member came", p.roll.Receive(p.now, p.make(Health{})), Accepted)
	p.roll.SetKeys([]Credential{{ID: p.c.ID, Secret: NewSecret()}})
	p.expect("the secret was changed", p.roll.Receive(p.now, p.make(Health{})), Forged)
	p.roll.SetKeys(nil)
	p.expect("the member is gone", p.roll.Receive(p.now, p.make(Health{})), Stranger)
}

func TestTwoKeyFilesWithOneIdentity(t *testing.T) {
	p := newPair(t)
	twin := Credential{ID: p.c.ID, Secret: NewSecret()}
	p.roll.SetKeys([]Credential{p.c, twin})
	p.expect("one", p.send(Health{}), Accepted)
	p.session = NewSession(twin, 100*ms)
	if heard := p.send(Health{}); heard.Outcome != Accepted || heard.From != twin {
		t.Errorf("got %+v", heard)
	}
}

// TestNoBeatCountsTwiceOrLate plays random networks and restarts against the
// one promise that matters: an accepted beat is no older than MaxAge, was not
// accepted before, and belongs to the sender's latest sessions.
func TestNoBeatCountsTwiceOrLate(t *testing.T) {
	type flying struct {
		datagram []byte
		made     time.Duration
		session  *Session
		beat     bool
	}
	rapid.Check(t, func(rt *rapid.T) {
		p := newPair(t)
		var seen []flying // everything that was ever sent, for the attacker to use
		accepted := map[string]bool{}
		record := func(datagram []byte, beat bool) {
			seen = append(seen, flying{bytes.Clone(datagram), p.now, p.session, beat})
		}
		deliver := func(f flying) {
			if !f.beat {
				if f.session == p.session && p.session.Hear(f.datagram) == BeatNow {
					record(p.make(Health{}), true)
				}
				return
			}
			heard := p.roll.Receive(p.now, f.datagram)
			if heard.Reply != nil {
				if len(heard.Reply) > len(f.datagram) {
					rt.Fatalf("the answer is larger than the datagram")
				}
				seen = append(seen, flying{heard.Reply, p.now, f.session, false})
			}
			if heard.Outcome != Accepted {
				return
			}
			if age := p.now - f.made; age > MaxAge {
				rt.Fatalf("a beat that was %s old was accepted", age)
			}
			if accepted[string(f.datagram)] {
				rt.Fatalf("a beat was accepted twice")
			}
			accepted[string(f.datagram)] = true
		}
		for range rapid.IntRange(1, 200).Draw(rt, "steps") {
			switch rapid.IntRange(0, 9).Draw(rt, "step") {
			case 0, 1, 2:
				record(p.make(Health{}), true)
			case 3, 4, 5: // what was sent lately arrives, in any order
				if n := len(seen); n > 0 {
					deliver(seen[rapid.IntRange(max(0, n-5), n-1).Draw(rt, "recent")])
				}
			case 6: // the attacker sends anything again
				if n := len(seen); n > 0 {
					deliver(seen[rapid.IntRange(0, n-1).Draw(rt, "any")])
				}
			case 7:
				p.now += time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(rt, "wait"))
			case 8:
				if rapid.Bool().Draw(rt, "which") {
					p.restartSender()
				} else {
					p.restartReceiver()
				}
			case 9: // the network is kind for a moment
				if heard := p.send(Health{}); heard.Outcome != Accepted {
					rt.Fatalf("a live member on a clean path: %s", heard.Outcome)
				}
			}
		}
	})
}

func BenchmarkReceive(b *testing.B) {
	p := newPair(b)
	p.send(Health{})
	for b.Loop() {
		p.now += time.Microsecond
		if p.roll.Receive(p.now, p.make(Health{})).Outcome != Accepted {
			b.Fatal("not accepted")
		}
	}
}
