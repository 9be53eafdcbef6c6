package beat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"upkeep"
)

// SenderOptions say who beats where. To, KeyFile and Interval are required.
type SenderOptions struct {
	// To are the receivers, each "host:port". Each gets every beat.
	To      []string
	KeyFile string
	// As picks the identity from a key file that holds several.
	As       string
	Interval time.Duration
	// Command, if set, decides whether the member is well.
	Command *Command
	Logger  *slog.Logger // discarded when nil
	// Ready is called once, if set, when the first beats have been sent.
	Ready func()
}

// Sender beats until it is stopped, then says goodbye.
type Sender struct {
	options    SenderOptions
	log        *slog.Logger
	credential Credential
	keys       *KeyFile
}

// NewSender reads the key and checks the options.
func NewSender(o SenderOptions) (*Sender, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Interval < upkeep.MinInterval || o.Interval > upkeep.MaxInterval {
		return nil, fmt.Errorf("interval %s must be %s to %s", o.Interval, upkeep.Duration(upkeep.MinInterval), upkeep.Duration(upkeep.MaxInterval))
	}
	if len(o.To) == 0 {
		return nil, errors.New("a receiver is required")
	}
	for i, to := range o.To {
		host, port, err := net.SplitHostPort(to)
		if err != nil || host == "" || port == "" {
			return nil, fmt.Errorf("receiver %q must be HOST:PORT", to)
		}
		if _, err := net.LookupPort("udp", port); err != nil {
			return nil, fmt.Errorf("receiver %q: port must be 1 to 65535", to)
		}
		if slices.Contains(o.To[:i], to) {
			return nil, fmt.Errorf("receiver %q is given twice", to)
		}
	}
	if o.Command != nil {
		if err := o.Command.validate(); err != nil {
			return nil, err
		}
	}
	s := &Sender{options: o, log: o.Logger, keys: NewKeyFile(o.KeyFile)}
	credentials, _, err := s.keys.Read()
	if err != nil {
		return nil, err
	}
	s.credential, err = pick(credentials, o)
	return s, err
}

// pick finds the sender's own line in its key file.
func pick(credentials []Credential, o SenderOptions) (Credential, error) {
	if o.As == "" {
		if len(credentials) > 1 {
			return Credential{}, upkeep.WithHint(fmt.Errorf("%s holds the keys of %d members", o.KeyFile, len(credentials)),
				"a member's file should hold its own key alone; otherwise say which one with --as")
		}
		return credentials[0], nil
	}
	id, err := ParseID(o.As)
	if err != nil {
		return Credential{}, err
	}
	i := slices.IndexFunc(credentials, func(c Credential) bool { return c.ID == id })
	if i < 0 {
		return Credential{}, fmt.Errorf("%s holds no key for %s", o.KeyFile, id)
	}
	return credentials[i], nil
}

// ID is the identity that the sender beats as.
func (s *Sender) ID() string { return s.credential.ID }

// keysEvery is how often a key file is looked at for a change.
const keysEvery = 2 * time.Second

// Run beats until ctx is done, says goodbye to every receiver, and returns.
// It takes about a second at most to end.
func (s *Sender) Run(ctx context.Context) error {
	health := newPulse()
	stop, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var rest sync.WaitGroup
	if s.options.Command != nil {
		// Nothing is beaten before the first outcome is known: a member that has
		// just started must not be called well unseen, nor unwell in advance.
		health.set(s.options.Command.run(ctx, s.log, Health{}))
		rest.Go(func() { s.options.Command.repeat(stop, s.log, health) })
	}
	var links []*link
	for _, to := range s.options.To {
		links = append(links, newLink(to, s.credential, s.options.Interval, s.log, health))
	}
	rest.Go(func() { s.watchKeys(stop, links) })
	var beating sync.WaitGroup
	var began sync.WaitGroup
	began.Add(len(links))
	for _, l := range links {
		beating.Go(func() { l.run(ctx, began.Done) })
	}
	rest.Go(func() {
		began.Wait()
		if s.options.Ready != nil {
			s.options.Ready()
		}
	})
	beating.Wait()
	cancel()
	rest.Wait()
	return nil
}

// watchKeys lets the links begin anew with another secret when the file holds one.
func (s *Sender) watchKeys(ctx context.Context, links []*link) {
	tick := time.NewTicker(keysEvery)
	defer tick.Stop()
	var last string
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		credentials, changed, err := s.keys.Read()
		var now Credential
		if err == nil && changed {
			now, err = pick(credentials, s.options)
		}
		switch {
		case err != nil && err.Error() != last:
			last = err.Error()
			s.log.Warn("beating on with the old key", "error", err)
		case err == nil && changed && now != s.credential:
			last, s.credential = "", now
			s.log.Info("beating with a new key", "as", now.ID)
			for _, l := range links {
				l.rekey(now)
			}
		}
	}
}

// pulse is the member's health, shared by the command and the links.
type pulse struct {
	mu      sync.Mutex
	health  Health
	changed chan struct{} // closed and replaced at each change
}

func newPulse() *pulse { return &pulse{changed: make(chan struct{})} }

func (p *pulse) set(h Health) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h != p.health {
		p.health = h
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

func (p *pulse) get() (Health, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.health, p.changed
}
