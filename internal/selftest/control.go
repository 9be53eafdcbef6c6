package selftest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
)

// control is upkeep's own, spoken to over its socket.
type control struct {
	client *client.Client
	server string
}

// Declare implements [Panel].
func (c *control) Declare(ctx context.Context, documents ...any) ([]string, error) {
	var text strings.Builder
	for _, document := range documents {
		if verbatim, is := document.(Verbatim); is {
			text.WriteString(string(verbatim))
			continue
		}
		written, err := json.Marshal(document)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&text, "---\n%s\n", written)
	}
	result, err := c.client.Apply(ctx, []wire.Source{{File: "evil.yaml", Text: text.String()}}, false)
	return result.Warnings, err
}

// Delete implements [Panel].
func (c *control) Delete(ctx context.Context, kind, name string) error {
	return c.client.Delete(ctx, wire.Ref{Kind: kind, Name: name})
}

// lookEvery is how often something is asked for that is waited for.
const lookEvery = 50 * time.Millisecond

// until asks until the answer is one, or an error, or the context ends.
func until(ctx context.Context, ask func() (done bool, err error)) error {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		done, err := ask()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// endless is how long one thing that was asked for may take: more than a reload
// may have to wait for others.
const endless = 150 * time.Second

// Site implements [Panel].
func (c *control) Site(ctx context.Context, name string) (status upkeep.SiteStatus, err error) {
	ctx, cancel := context.WithTimeout(ctx, endless)
	defer cancel()
	err = until(ctx, func() (bool, error) {
		status, err = c.client.Site(ctx, name)
		return status.State != upkeep.SitePending, err
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return status, fmt.Errorf("site %s is still %s: %s", name, status.State, status.Reason)
	}
	return status, err
}

// Job implements [Panel].
func (c *control) Job(ctx context.Context, kind string, payload any) (upkeep.Job, error) {
	text, is := payload.(json.RawMessage)
	if !is {
		written, err := json.Marshal(payload)
		if err != nil {
			return upkeep.Job{}, err
		}
		text = written
	}
	job, err := c.client.RunJob(ctx, wire.NewJob{Kind: kind, Server: c.server, Payload: text})
	if err != nil {
		return job, err
	}
	ctx, cancel := context.WithTimeout(ctx, endless)
	defer cancel()
	id := job.ID
	err = until(ctx, func() (bool, error) {
		job, err = c.client.Job(ctx, id)
		return job.State.Ended(), err
	})
	return job, err
}

// Declared implements [Panel].
func (c *control) Declared(ctx context.Context) (map[string]string, error) {
	all := map[string]string{}
	for _, kind := range upkeep.HostingKinds {
		found, err := c.client.Objects(ctx, kind, "")
		if err != nil {
			return nil, err
		}
		for _, one := range found {
			var owned struct{ Account string }
			_ = json.Unmarshal(one.Object, &owned) // an account has no account
			text, err := json.Marshal(struct {
				Account    string
				Generation int64
				Object     json.RawMessage
			}{owned.Account, one.Generation, one.Object})
			if err != nil {
				return nil, err
			}
			all[kind+"/"+one.Name] = string(text)
		}
	}
	return all, nil
}

// verify has the agent compare the files of its web server with what is declared.
func (c *control) verify(ctx context.Context) error {
	job, err := c.client.SyncServer(ctx, c.server, "verify")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, endless)
	defer cancel()
	if err := until(ctx, func() (bool, error) {
		job, err = c.client.Job(ctx, job.ID)
		return job.State.Ended(), err
	}); err != nil {
		return err
	}
	var result struct {
		Drift          map[string]string
		Strays, Failed []json.RawMessage
	}
	switch err := json.Unmarshal(job.Result, &result); {
	case job.State != upkeep.JobDone:
		return fmt.Errorf("verify is %s: %s", job.State, job.Error)
	case err != nil:
		return err
	case len(result.Drift)+len(result.Strays)+len(result.Failed) > 0:
		return fmt.Errorf("verify finds differences: %.1000s", job.Result)
	}
	return nil
}

// admit makes a user of an account, with a token that may do what the user may.
func (c *control) admit(ctx context.Context, name, account, password string) (string, error) {
	if err := c.client.AddUser(ctx, wire.NewUser{Name: name, Role: upkeep.UserCustomer, Account: account, Password: password}); err != nil {
		return "", err
	}
	made, err := c.client.AddToken(ctx, name, wire.NewToken{Name: "evil", Scope: upkeep.ScopeWrite, Expires: time.Now().Add(time.Hour)})
	return made.Token, err
}
