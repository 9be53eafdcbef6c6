package webserver

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"upkeep/internal/vhost"
)

// asker asks one web server for paths of sites, by their names in the Host
// header: DNS may not know them yet.
type asker struct {
	address string
	client  *http.Client
}

func newAsker(address string) *asker {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return &asker{address, &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "tcp", address)
			},
			MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Second, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       30 * time.Second,
	}}
}

// answers reports whether the server knows the path, and what it said if not.
func (a *asker) answers(ctx context.Context, p vhost.Probe, fresh bool) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.address+p.Path, nil)
	if err != nil {
		return err
	}
	req.Host, req.Close = p.Host, fresh
	resp, err := a.client.Do(req)
	if err != nil {
		return fmt.Errorf("asking %s for %s: %w", a.address, p.Host, err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16)) // so that the connection can be used again
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("%s answers %s with status %d from another configuration", a.address, p.Host, resp.StatusCode)
	}
	return nil
}

// askersAtOnce is how many connections ask side by side.
const askersAtOnce = 4

// each calls f for each element, some side by side.
func each[T any](list []T, f func(T)) {
	if len(list) == 1 {
		f(list[0])
		return
	}
	work := make(chan T)
	var group sync.WaitGroup
	for range min(askersAtOnce, len(list)) {
		group.Go(func() {
			for item := range work {
				f(item)
			}
		})
	}
	for _, item := range list {
		work <- item
	}
	close(work)
	group.Wait()
}
