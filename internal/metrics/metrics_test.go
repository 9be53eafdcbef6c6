package metrics

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"upkeep"
	"upkeep/internal/beat"
	"upkeep/internal/notify"
	"upkeep/internal/probe"
)

type source struct {
	members int
	results probe.Tally
}

func (s source) Pools(context.Context) ([]upkeep.PoolStatus, error) {
	p := upkeep.PoolStatus{Name: "web", Frozen: "cut off"}
	for i := range s.members {
		p.Members = append(p.Members, upkeep.MemberStatus{
			Address: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), Verdict: upkeep.Down, RTT: upkeep.Duration(time.Second / 2),
		})
	}
	return []upkeep.PoolStatus{p}, nil
}

func (s source) Zones(context.Context) ([]upkeep.ZoneStatus, error) {
	return []upkeep.ZoneStatus{{
		Name: "example.test", Serial: 7,
		Publishers: []upkeep.PublisherStatus{{Type: "bind"}, {Type: "bind"}, {Type: "update"}},
		Servers:    []upkeep.ServerStatus{{Address: "192.0.2.1:53", Serial: 6}},
	}}, nil
}

func (s source) Unwritten() (int, time.Time) { return 5, time.Unix(90, 0) }

func (s source) Alive() time.Time { return time.Unix(100, 0) }

func (s source) Stats() probe.Stats {
	s.results.Took[1], s.results.Took[len(probe.TookBounds)] = 5, 1
	s.results.OK, s.results.Void, s.results.TookSum = 42, 2, time.Minute
	return probe.Stats{Probes: 44, Late: 3, Results: s.results, Beats: probe.BeatStats{Outcomes: [beat.Outcomes]uint64{beat.Forged: 9}, Lost: 4}}
}

type tellings map[string]notify.Stats

func (t tellings) Stats() map[string]notify.Stats { return t }

func scrape(t *testing.T, s source) string {
	t.Helper()
	m := New("test", slog.New(slog.DiscardHandler))
	m.Collect(s, s)
	m.CollectNotifier(tellings{"ops": {Sent: 7, Failed: 2, Expired: 1, Waiting: 3, Failing: time.Unix(50, 0)}})
	m.Publish("bind", nil)
	m.Publish("bind", errors.New("rndc"))
	m.Event(upkeep.Event{Kind: upkeep.EventVerdict})
	m.Failover(300 * time.Millisecond)
	if problems, err := testutil.GatherAndLint(m.registry); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	answer := httptest.NewRecorder()
	m.Handler().ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.Code != 200 {
		t.Fatalf("status %d, %v: %s", answer.Code, err, text)
	}
	return string(text)
}

func TestScrape(t *testing.T) {
	got := scrape(t, source{members: 2})
	for _, want := range []string{
		`upkeep_pool_members{pool="web",verdict="down"} 2`,
		`upkeep_pool_frozen{pool="web"} 1`,
		`upkeep_member_up{member="10.0.0.1",pool="web"} 0`,
		`upkeep_member_rtt_seconds{member="10.0.0.0",pool="web"} 0.5`,
		`upkeep_zone_server_in_sync{server="192.0.2.1:53",zone="example.test"} 0`,
		`upkeep_zone_serial{zone="example.test"} 7`,
		`upkeep_probes_total{result="ok"} 42`,
		`upkeep_probes_total{result="void"} 2`,
		`upkeep_probe_duration_seconds_bucket{le="0.0005"} 0`,
		`upkeep_probe_duration_seconds_bucket{le="0.001"} 5`,
		`upkeep_probe_duration_seconds_bucket{le="10"} 5`,
		`upkeep_probe_duration_seconds_bucket{le="+Inf"} 6`,
		`upkeep_probe_duration_seconds_sum 60`,
		`upkeep_heartbeats_received_total{outcome="forged"} 9`,
		`upkeep_heartbeats_received_total{outcome="accepted"} 0`,
		`upkeep_heartbeats_lost_total 4`,
		`upkeep_publishes_total{publisher="bind",result="failed"} 1`,
		`upkeep_notifications_sent_total{receiver="ops"} 7`,
		`upkeep_notification_failures_total{receiver="ops"} 2`,
		`upkeep_notification_events_expired_total{receiver="ops"} 1`,
		`upkeep_notification_events_waiting{receiver="ops"} 3`,
		`upkeep_notification_failing_timestamp_seconds{receiver="ops"} 50`,
		`upkeep_events_total{kind="verdict"} 1`,
		`upkeep_failover_seconds_bucket{le="0.5"} 1`,
		`upkeep_database_events_waiting 5`,
		`upkeep_database_away_timestamp_seconds 90`,
		`upkeep_loop_turned_timestamp_seconds 100`,
		`process_open_fds`, `go_goroutines`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("missing: %s", want)
		}
	}
}

func TestSeriesAreBounded(t *testing.T) {
	got := scrape(t, source{members: MaxMembers + 1})
	if strings.Contains(got, "upkeep_member_up") || !strings.Contains(got, `upkeep_pool_members{pool="web",verdict="down"} 10001`) {
		t.Error("with too many members the counts alone should be shown")
	}
}
