package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/api/wire"
)

// silence is how long a stream may say nothing, not even that it is alive,
// before it is taken for dead. The server says so every 15 seconds.
const silence = 45 * time.Second

// maxLine bounds one line of a stream, in bytes.
const maxLine = 1 << 20

// Follow calls each for every event that f chooses, from the one after f.After
// on if that is set, until ctx ends or each returns an error. When the
// connection breaks it goes on where it stopped; it gives up only when the
// first connection cannot be made.
func (c *Client) Follow(ctx context.Context, f EventFilter, each func(upkeep.Event) error) error {
	connected := false
	for {
		err := c.followOnce(ctx, &f, &connected, each)
		var stop *stopError
		switch {
		case errors.As(err, &stop):
			return stop.err
		case ctx.Err() != nil:
			return ctx.Err()
		case !connected:
			return err
		}
		var problem *wire.Problem
		if errors.As(err, &problem) {
			return err // refused or gone for good; asking again would not help
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// stopError carries an error of the caller's own function through.
type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }

func (c *Client) followOnce(ctx context.Context, f *EventFilter, connected *bool, each func(upkeep.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	header := http.Header{}
	if f.After != 0 {
		header.Set("Last-Event-ID", strconv.FormatInt(f.After, 10))
	}
	response, err := c.send(ctx, request{method: "GET", path: []string{"events", "stream"}, query: chosen(*f), accept: "text/event-stream"}, header)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	*connected = true
	watchdog := time.AfterFunc(silence, cancel)
	defer watchdog.Stop()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxLine)
	var data strings.Builder
	for lines.Scan() {
		watchdog.Reset(silence)
		line := lines.Text()
		if value, is := strings.CutPrefix(line, "data:"); is {
			data.WriteString(strings.TrimPrefix(value, " ") + "\n")
		}
		if line != "" || data.Len() == 0 {
			continue // the id is in the data too
		}
		var e upkeep.Event
		if err := json.Unmarshal([]byte(data.String()), &e); err != nil {
			return fmt.Errorf("reading an event: %w", err)
		}
		data.Reset()
		f.After = max(f.After, e.ID)
		if err := each(e); err != nil {
			return &stopError{err}
		}
	}
	return lines.Err()
}
