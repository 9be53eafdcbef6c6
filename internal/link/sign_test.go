package link

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"upkeep"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func testJob() Job {
	return Job{
		ID: 7, Server: "web1", Kind: upkeep.JobSiteApply, Object: "site/example.test", Generation: 3,
		Expires: noon.Add(10 * time.Minute), Payload: json.RawMessage(`{"site":{"name":"example.test"}}`),
	}
}

func signed(t testing.TB, key ed25519.PrivateKey, job Job) Signed {
	t.Helper()
	s, err := Sign(key, job)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func keys(t testing.TB) (ed25519.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return public, private
}

func TestOpenReturnsWhatWasSigned(t *testing.T) {
	public, private := keys(t)
	want := testJob()
	want.Payload = json.RawMessage("{ \"text\": \"<b>&\u2028 \\u0000 é\" }")
	want.Expires = want.Expires.Add(300 * time.Millisecond).In(time.FixedZone("", 7200))
	got, err := Open(public, "web1", noon, signed(t, private, want))
	if err != nil {
		t.Fatal(err)
	}
	var wantPayload, gotPayload any
	if json.Unmarshal(want.Payload, &wantPayload) != nil || json.Unmarshal(got.Payload, &gotPayload) != nil {
		t.Fatal("a payload is not JSON")
	}
	if diff := cmp.Diff(wantPayload, gotPayload); diff != "" {
		t.Error(diff)
	}
	want.Payload, want.Expires = got.Payload, noon.Add(10*time.Minute)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestOpenRefuses(t *testing.T) {
	public, private := keys(t)
	otherPublic, _ := keys(t)
	good := signed(t, private, testJob())
	// resigned is a body that control itself signed, so that only what is written
	// in it can be the reason.
	resigned := func(body string) Signed {
		return Signed{Body: []byte(body), Signature: ed25519.Sign(private, append([]byte(domain), body...))}
	}
	body := string(good.Body)
	for _, test := range []struct {
		name   string
		key    ed25519.PublicKey
		server string
		now    time.Time
		signed Signed
		says   string
	}{
		{"another control", otherPublic, "web1", noon, good, "not signed by the control"},
		{"no key", nil, "web1", noon, good, "signing key is not known"},
		{"for another server", public, "web2", noon, good, "is for the server web1, and this is web2"},
		{"expired", public, "web1", noon.Add(10 * time.Minute), good, "expired at 2026-11-20T12:10:00Z"},
		{"lives too long", public, "web1", noon.Add(-MaxLife), good, "no job may have more than 24h0m0s"},
		{"no body", public, "web1", noon, Signed{Signature: good.Signature}, "is empty"},
		{"no signature", public, "web1", noon, Signed{Body: good.Body}, "has 0 bytes and must have 64"},
		{"long signature", public, "web1", noon, Signed{Body: good.Body, Signature: append(good.Signature, 0)}, "has 65 bytes"},
		{"signed without the domain", public, "web1", noon, Signed{Body: good.Body, Signature: ed25519.Sign(private, good.Body)}, "not signed by the control"},
		{"too long", public, "web1", noon, Signed{Body: make([]byte, MaxJob+1), Signature: good.Signature}, "at most 67108864"},
		{"unsigned garbage is not parsed", public, "web1", noon, Signed{Body: []byte("{"), Signature: good.Signature}, "not signed by the control"},
		{"garbage", public, "web1", noon, resigned("{"), "reading a signed job"},
		{"unknown field", public, "web1", noon, resigned(strings.Replace(body, `"id"`, `"root":true,"id"`, 1)), "unknown field"},
		{"field twice", public, "web1", noon, resigned(strings.Replace(body, `"id"`, `"server":"web2","id"`, 1)), "not written the way"},
		{"field in capitals", public, "web1", noon, resigned(strings.Replace(body, `"server"`, `"Server"`, 1)), "not written the way"},
		{"spaces", public, "web1", noon, resigned(" " + body), "not written the way"},
		{"two values", public, "web1", noon, resigned(body + body), "something follows"},
		{"null payload", public, "web1", noon, resigned(strings.Replace(body, `{"site":{"name":"example.test"}}`, `null`, 1)), "not a JSON object"},
		{"other zone", public, "web1", noon, resigned(strings.Replace(body, `12:10:00Z`, `14:10:00+02:00`, 1)), "whole seconds of UTC"},
	} {
		t.Run(test.name, func(t *testing.T) {
			job, err := Open(test.key, test.server, test.now, test.signed)
			if !errors.Is(err, upkeep.ErrRefused) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got job %v and error %v, want a refusal with %q", job, err, test.says)
			}
		})
	}
}

// TestLongPayloads has them come back as they were, in a fraction of their length,
// and refuses what is packed in any other way than jobs are.
func TestLongPayloads(t *testing.T) {
	public, private := keys(t)
	want := testJob()
	want.Payload = json.RawMessage(`{"a":"` + strings.Repeat("0123456789", packFrom/10) + `"}`)
	sent := signed(t, private, want)
	if len(sent.Body) > packFrom/4 {
		t.Errorf("%d bytes travel as %d", len(want.Payload), len(sent.Body))
	}
	got, err := Open(public, "web1", noon, sent)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	plain := want
	plain.Plain = true
	if sent = signed(t, private, plain); bytes.Contains(sent.Body, []byte("packed")) {
		t.Error("the payload is packed for an agent that cannot read that")
	}
	if got, err = Open(public, "web1", noon, sent); err != nil || !cmp.Equal(want, got) {
		t.Errorf("not packed it is %+v, %v", got, err)
	}
	bomb, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	pack := func(text string) []byte { return bomb.EncodeAll([]byte(text), nil) }
	for name, test := range map[string]struct {
		change func(*Job)
		says   string
	}{
		"no zstd":             {func(j *Job) { j.Packed = []byte("{}") }, "unpacking its payload"},
		"cut off":             {func(j *Job) { j.Packed = j.Packed[:len(j.Packed)-1] }, "unpacking its payload"},
		"too long":            {func(j *Job) { j.Packed = pack("{" + strings.Repeat(" ", MaxJob) + "}") }, "unpacking its payload"},
		"short":               {func(j *Job) { j.Packed = pack("{}") }, "packed without need"},
		"no object":           {func(j *Job) { j.Packed = pack("[" + strings.Repeat(" ", packFrom) + "]") }, "not a JSON object"},
		"a payload beside it": {func(j *Job) { j.Payload = json.RawMessage("{}") }, "there twice"},
		"neither":             {func(j *Job) { j.Packed = nil }, "not a JSON object"},
	} {
		job, err := want.packed()
		if err != nil {
			t.Fatal(err)
		}
		test.change(&job)
		body, err := json.Marshal(job)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Open(public, "web1", noon, Signed{Body: body, Signature: ed25519.Sign(private, append([]byte(domain), body...))})
		if !errors.Is(err, upkeep.ErrRefused) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want a refusal with %q", name, err, test.says)
		}
	}
}

func TestOpenRefusesEveryChangedByte(t *testing.T) {
	public, private := keys(t)
	good := signed(t, private, testJob())
	for _, part := range [][]byte{good.Body, good.Signature} {
		for i := range part {
			part[i] ^= 1
			if _, err := Open(public, "web1", noon, good); err == nil {
				t.Fatalf("byte %d was changed and the job is taken", i)
			}
			part[i] ^= 1
		}
	}
}

func TestSignRefusesWhatOpenWould(t *testing.T) {
	_, private := keys(t)
	for name, change := range map[string]func(*Job){
		"no id":             func(j *Job) { j.ID = 0 },
		"no server":         func(j *Job) { j.Server = "" },
		"server":            func(j *Job) { j.Server = "../web1" },
		"no kind":           func(j *Job) { j.Kind = "" },
		"kind":              func(j *Job) { j.Kind = "\xff\xff" },
		"object":            func(j *Job) { j.Object = strings.Repeat("x", maxObject+1) },
		"object in Latin-1": func(j *Job) { j.Object = "site/\xe9.test" },
		"generation":        func(j *Job) { j.Generation = -1 },
		"no expiry":         func(j *Job) { j.Expires = time.Time{} },
		"far expiry":        func(j *Job) { j.Expires = noon.AddDate(9000, 0, 0) },
		"no payload":        func(j *Job) { j.Payload = nil },
		"list":              func(j *Job) { j.Payload = json.RawMessage(`[]`) },
		"broken":            func(j *Job) { j.Payload = json.RawMessage(`{"a":`) },
		"two values":        func(j *Job) { j.Payload = json.RawMessage(`{}{}`) },
	} {
		job := testJob()
		change(&job)
		if _, err := Sign(private, job); err == nil {
			t.Errorf("%s: %+v was signed", name, job)
		}
	}
}

// FuzzOpen holds that whatever control signs is opened as what it was, and that
// nothing else is opened.
func FuzzOpen(f *testing.F) {
	public, private, err := ed25519.GenerateKey(bytes.NewReader(make([]byte, 32)))
	if err != nil {
		f.Fatal(err)
	}
	good, err := Sign(private, testJob())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good.Body, good.Signature, true)
	f.Add(good.Body, good.Signature, false)
	f.Add([]byte(`{"id":1}`), make([]byte, 64), true)
	f.Fuzz(func(t *testing.T, body, signature []byte, resign bool) {
		if resign {
			signature = ed25519.Sign(private, append([]byte(domain), body...))
		}
		job, err := Open(public, "web1", noon, Signed{body, signature})
		if err != nil {
			return
		}
		if !resign && (!bytes.Equal(body, good.Body) || !bytes.Equal(signature, good.Signature)) {
			t.Fatalf("opened a job that was never signed: %q", body)
		}
		again, err := Sign(private, job)
		if err == nil && len(job.Payload) >= packFrom { // there is more than one way to pack it
			same, err := Open(public, "web1", noon, again)
			if diff := cmp.Diff(job, same); err != nil || diff != "" {
				t.Fatalf("%v, %s", err, diff)
			}
			return
		}
		if err != nil || !bytes.Equal(again.Body, body) {
			t.Fatalf("%q is opened, but is not what is signed for it: %q, %v", body, again.Body, err)
		}
	})
}
