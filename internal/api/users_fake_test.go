package api

import (
	"context"
	"fmt"
	"time"

	"upkeep"
	"upkeep/internal/store"
)

// fakeUsers are users in memory, for what is HTTP's own.
type fakeUsers struct {
	did  []string
	fail error
}

func (f *fakeUsers) note(format string, args ...any) error {
	f.did = append(f.did, fmt.Sprintf(format, args...))
	return f.fail
}

func (f *fakeUsers) List(context.Context) ([]upkeep.User, error) {
	return []upkeep.User{{Name: "ada", Role: upkeep.UserStaff, Created: time.Unix(1, 0).UTC()}}, f.fail
}

func (f *fakeUsers) Add(_ context.Context, who string, user upkeep.User, _ string) error {
	if broken := user.Validate(); len(broken) > 0 {
		return &upkeep.InvalidError{Fields: broken}
	}
	return f.note("%s adds %s", who, user.Name)
}

func (f *fakeUsers) Remove(_ context.Context, who, name string) error {
	return f.note("%s removes %s", who, name)
}

func (f *fakeUsers) SetPassword(_ context.Context, who, name, _ string) error {
	return f.note("%s sets the password of %s", who, name)
}

func (f *fakeUsers) RemoveFactor(_ context.Context, who, name string) error {
	return f.note("%s removes the factor of %s", who, name)
}

func (f *fakeUsers) Passkeys(context.Context, string) ([]upkeep.Passkey, error) {
	return []upkeep.Passkey{{ID: 1, Name: "laptop", Host: "upkeep.example.test", Created: time.Unix(1, 0).UTC()}}, f.fail
}

func (f *fakeUsers) RemovePasskey(_ context.Context, who, name string, id int64) error {
	return f.note("%s removes passkey %d of %s", who, id, name)
}

func (f *fakeUsers) SignOut(_ context.Context, who, name string, id int64) error {
	return f.note("%s signs %s out of %d", who, name, id)
}

func (f *fakeUsers) Tokens(context.Context, string) ([]upkeep.AccessToken, error) {
	return []upkeep.AccessToken{{ID: 1, Name: "backup", Scope: upkeep.ScopeRead, Created: time.Unix(1, 0).UTC(), Expires: time.Unix(2, 0).UTC()}}, f.fail
}

func (f *fakeUsers) AddToken(_ context.Context, who, name string, token upkeep.AccessToken) (upkeep.AccessToken, string, error) {
	err := f.note("%s makes a token of %s", who, name)
	token.ID, token.Created = int64(len(f.did)), time.Unix(1, 0).UTC()
	return token, fmt.Sprintf("upkeep_secret-%d", token.ID), err
}

func (f *fakeUsers) RemoveToken(_ context.Context, who, name string, id int64) error {
	return f.note("%s takes token %d of %s back", who, id, name)
}

// fakeAnswers remembers requests in memory.
type fakeAnswers struct{ all map[[2]string]store.Requested }

func (f *fakeAnswers) RequestFor(_ context.Context, caller, key string) (store.Requested, error) {
	if r, is := f.all[[2]string{caller, key}]; is {
		return r, nil
	}
	return store.Requested{}, upkeep.ErrNotFound
}

func (f *fakeAnswers) KeepAnswer(_ context.Context, o store.Once, answer []byte) error {
	if f.all == nil {
		f.all = map[[2]string]store.Requested{}
	}
	f.all[[2]string{o.Caller, o.Key}] = store.Requested{Request: o.Request, Answer: answer}
	return nil
}

// fakeAudit is an audit log of one entry.
type fakeAudit struct{ filter store.AuditFilter }

var auditEntry = upkeep.AuditEntry{ID: 3, At: time.Unix(1, 0).UTC(), Who: "user ada", Object: "pool/web", What: "changed ttl",
	Before: []byte(`{"ttl":"1m"}`), After: []byte(`{"ttl":"2m"}`)}

func (f *fakeAudit) Audit(_ context.Context, filter store.AuditFilter) ([]upkeep.AuditEntry, error) {
	f.filter = filter
	short := auditEntry
	short.Before, short.After = nil, nil
	return []upkeep.AuditEntry{short}, nil
}

func (f *fakeAudit) AuditEntry(_ context.Context, id int64) (upkeep.AuditEntry, error) {
	if id != auditEntry.ID {
		return upkeep.AuditEntry{}, upkeep.ErrNotFound
	}
	return auditEntry, nil
}
