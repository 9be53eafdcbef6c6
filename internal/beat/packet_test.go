package beat

import (
	"bytes"
	"errors"
	"testing"
	"time"
)

func credential(id string) Credential { return Credential{ID: id, Secret: NewSecret()} }

func TestSealAndOpen(t *testing.T) {
	c := credential("192.0.2.1")
	want := Packet{
		Kind: KindBeat, Health: Health{NotWell, CauseExit, 2}, Member: MemberHash(c.ID), Session: 7, Counter: 8,
		Sent: 9 * time.Second, Interval: 100 * time.Millisecond, Nonce: Nonce{1, 2, 3},
	}
	datagram := NewKey(c.Secret).Seal(want)
	if len(datagram) != Size {
		t.Fatalf("datagram has %d bytes, want %d", len(datagram), Size)
	}
	got, err := NewKey(c.Secret).Open(datagram)
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

// TestEveryBitIsProtected turns each bit of a datagram in turn.
func TestEveryBitIsProtected(t *testing.T) {
	key := NewKey(NewSecret())
	datagram := key.Seal(Packet{Kind: KindBeat, Session: 1, Counter: 2, Nonce: Nonce{3}})
	for bit := range Size * 8 {
		changed := bytes.Clone(datagram)
		changed[bit/8] ^= 1 << (bit % 8)
		if _, err := key.Open(changed); !errors.Is(err, ErrForged) && !errors.Is(err, ErrMalformed) {
			t.Errorf("bit %d turned: got %v", bit, err)
		}
	}
	for size := range Size {
		if _, err := key.Open(datagram[:size]); !errors.Is(err, ErrMalformed) {
			t.Errorf("cut to %d bytes: got %v", size, err)
		}
	}
	if _, err := key.Open(append(datagram, 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("one byte longer: got %v", err)
	}
}

func TestReason(t *testing.T) {
	for _, tt := range []struct {
		health Health
		want   string
	}{
		{Health{}, ""},
		{Health{State: Goodbye}, ""},
		{Health{NotWell, CauseNone, 0}, "it says so"},
		{Health{NotWell, CauseExit, 2}, "its own command exited with status 2"},
		{Health{NotWell, CauseSignal, 9}, "its own command was ended by signal 9 (killed)"},
		{Health{NotWell, CauseTimeout, 0}, "its own command did not end in time"},
		{Health{NotWell, CauseNotStarted, 0}, "its own command could not be started"},
	} {
		if got := tt.health.Reason(); got != tt.want {
			t.Errorf("%+v: got %q, want %q", tt.health, got, tt.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	c := credential("192.0.2.1")
	key := NewKey(c.Secret)
	session := NewSession(c, time.Second)
	f.Add(session.Beat(0, Health{}))
	f.Add(session.Beat(time.Hour, Health{NotWell, CauseSignal, 9}))
	f.Add(session.Beat(time.Hour, Health{State: Goodbye}))
	f.Add(key.Seal(Packet{Kind: KindChallenge, Nonce: Nonce{1}}))
	f.Add([]byte{})
	roll := NewRoll()
	roll.SetKeys([]Credential{c})
	f.Fuzz(func(t *testing.T, datagram []byte) {
		packet, err := Decode(datagram)
		if err == nil {
			again := make([]byte, Size)
			packet.encode(again)
			if !bytes.Equal(again[:tagOffset], datagram[:tagOffset]) {
				t.Errorf("%x has a second form %x", datagram, again)
			}
			_ = packet.Health.Reason()
		}
		heard := roll.Receive(0, datagram)
		if len(heard.Reply) > len(datagram) {
			t.Errorf("a reply of %d bytes to %d", len(heard.Reply), len(datagram))
		}
		// Nobody outside has the key, except through a seed sent as it was.
		if heard.Outcome == Accepted {
			t.Errorf("%x was accepted", datagram)
		}
	})
}
