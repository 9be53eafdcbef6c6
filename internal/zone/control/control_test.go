package control

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"upkeep/internal/testkit"
)

// named starts a named that takes commands with a key of the algorithm.
func named(t *testing.T, algorithm string) Channel {
	t.Helper()
	const secret = "dXBrZWVwLWNvbnRyb2wtdGVzdA=="
	port := testkit.FreePort(t)
	testkit.StartNamed(t, testkit.NamedConfig{
		Config: fmt.Sprintf("key \"mine\" { algorithm %s; secret %q; };\ncontrols { inet 127.0.0.1 port %d allow { 127.0.0.1; } keys { \"mine\"; }; };\n", algorithm, secret, port) +
			`zone "example.test" { type primary; file "{dir}/db"; };`,
		Files: map[string]string{"db": "$TTL 60\n@ SOA ns1 hostmaster 7 300 60 86400 60\n@ NS ns1\nns1 A 192.0.2.53\n"},
	})
	key, err := base64.StdEncoding.DecodeString(secret)
	if err != nil {
		t.Fatal(err)
	}
	return Channel{Address: fmt.Sprintf("127.0.0.1:%d", port), Algorithm: algorithm, Secret: key}
}

func TestSayToNamed(t *testing.T) {
	for algorithm := range algorithms {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			c := named(t, algorithm)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			said, err := c.Say(ctx, "zonestatus example.test")
			if err != nil || !strings.Contains(said, "serial: 7") {
				t.Errorf("it says %q, %v", said, err)
			}
			if _, err := c.Say(ctx, "reload nowhere.test"); err == nil || !strings.Contains(err.Error(), "not found") {
				t.Errorf("a zone that it does not have: %v", err)
			}
			c.Secret = []byte("another")
			if said, err := c.Say(ctx, "reload example.test"); err == nil {
				t.Errorf("with another secret it says %q", said)
			}
		})
	}
}

// Whoever answers at the address without the key is not believed.
func TestSayToSomebodyElse(t *testing.T) {
	mac := hmac.New(sha256.New, []byte("theirs"))
	for name, answer := range map[string][]byte{
		"nothing":       {},
		"a page":        []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"a huge answer": {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1},
		"another key":   table{{name: "_ctrl", table: table{{name: "_rpl", text: "1"}}}, {name: "_data", table: table{{name: "result", text: "0"}}}}.pack(163, mac),
		"a cut answer":  table{{name: "_ctrl", text: "x"}}.pack(163, mac)[:40],
	} {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			go func() {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Read(make([]byte, 1024)) // what is asked does not matter
				_, _ = conn.Write(answer)
				_ = conn.Close()
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			c := Channel{Address: listener.Addr().String(), Algorithm: "hmac-sha256", Secret: []byte("ours")}
			if said, err := c.Say(ctx, "reload example.test"); err == nil {
				t.Errorf("it is taken to say %q", said)
			}
		})
	}
}

// A named that stands still costs no more than the time that it is given.
func TestSayEnds(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := Channel{Address: listener.Addr().String(), Algorithm: "hmac-sha256", Secret: []byte("s")}.Say(ctx, "reload example.test")
		ended <- err
	}()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("no error")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it goes on waiting")
	}
}

func FuzzUnpack(f *testing.F) {
	mac := hmac.New(sha256.New, []byte("s"))
	sound := table{{name: "_ctrl", table: table{{name: "_ser", text: "1"}}}, {name: "_data", table: table{{name: "text", text: "x"}}}}
	f.Add(sound.pack(163, mac)[4:])
	f.Add(sound.append(nil))
	f.Add([]byte{0, 0, 0, 1, 255, 1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		if read, err := unpack(b, 163, mac); err == nil {
			if again, err := unpack(read.pack(163, mac)[4:], 163, mac); err != nil || fmt.Sprint(again) != fmt.Sprint(read) {
				t.Errorf("%v becomes %v, %v", read, again, err)
			}
		}
		// What lies below the signature, as who has the key could send it.
		if read, err := readTable(b, maxDepth); err == nil {
			if again, err := readTable(read.append(nil), maxDepth); err != nil || fmt.Sprint(again) != fmt.Sprint(read) {
				t.Errorf("%v becomes %v, %v", read, again, err)
			}
		}
	})
}
