package watch

import (
	"path/filepath"
	"strings"
	"testing"

	"upkeep"
	"upkeep/internal/beat"
)

// TestApplyTriesOutWhatThisMachineLacks refuses what could not work here, before
// it is stored.
func TestApplyTriesOutWhatThisMachineLacks(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "beat.keys")
	known, err := beat.NewCredentials([]string{"192.0.2.1", "web2.internal"})
	if err != nil {
		t.Fatal(err)
	}
	if err := beat.WriteKeys(keys, known...); err != nil {
		t.Fatal(err)
	}
	pool := testPool("192.0.2.1", "192.0.2.2")
	pool.Check = upkeep.Check{Type: upkeep.CheckHeartbeat, KeyFile: keys}
	named := pool
	named.Members = members("192.0.2.1", "192.0.2.2")
	named.Members[1].CheckAddress = "web2.internal"
	hook := upkeep.Receiver{Name: "chat", Type: upkeep.ReceiverWebhook, URL: "https://chat.example.test/"}
	broken := hook
	broken.Template = `{"text": "{{.Title}}"}`

	r := newRig(t)
	for name, tt := range map[string]struct {
		object upkeep.Object
		want   string // "" for accepted
	}{
		"member without key":     {pool, "pool/web: members[1]: \"192.0.2.2\": has no key in " + keys},
		"key under another name": {named, ""},
		"receiver":               {hook, ""},
		"template":               {broken, "receiver/chat: template: the template does not make valid JSON"},
	} {
		_, err := r.Apply(t.Context(), "test", []upkeep.Object{testZone(), tt.object}, true)
		if (tt.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}
