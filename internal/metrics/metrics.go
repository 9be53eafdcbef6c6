// Package metrics shows what upkeep does in the form that Prometheus reads.
// Names follow its conventions: a prefix, base units, _total for counters.
package metrics

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"upkeep"
	"upkeep/internal/beat"
	"upkeep/internal/notify"
	"upkeep/internal/probe"
)

// MaxMembers bounds the series: with more members than that in all pools, only
// the counts of each pool are shown and not each member.
const MaxMembers = 10_000

// Source tells what is being done now.
type Source interface {
	Pools(ctx context.Context) ([]upkeep.PoolStatus, error)
	Zones(ctx context.Context) ([]upkeep.ZoneStatus, error)
	// Alive is when the loop last ended a round.
	Alive() time.Time
	// Unwritten says how many events wait in memory for a database that takes no
	// writes, and since when; both are zero while it does.
	Unwritten() (events int, since time.Time)
}

// Prober counts probes; [probe.Engine] is the one.
type Prober interface{ Stats() probe.Stats }

// Notifier counts what receivers are told; [notify.Notifier] is the one.
type Notifier interface {
	Stats() map[string]notify.Stats
}

// Metrics collects what is asked for at each scrape, and counts what happens in
// between.
type Metrics struct {
	registry *prometheus.Registry
	events   *prometheus.CounterVec
	failover prometheus.Histogram
	publish  *prometheus.CounterVec
	log      *slog.Logger
}

// New makes metrics that count what they are told; [Metrics.Collect] adds the rest.
func New(version string, log *slog.Logger) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(), log: log,
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upkeep_events_total", Help: "Events by kind: verdict, decision, publish, proof, admin, declared, warning, system.",
		}, []string{"kind"}),
		failover: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "upkeep_failover_seconds", Help: "Time from the last good probe of a removed member to the last name server without it.",
			Buckets: []float64{0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300},
		}),
	}
	m.publish = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "upkeep_publishes_total", Help: "Runs of publishers by type and result: ok or failed.",
	}, []string{"publisher", "result"})
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "upkeep_build_info", Help: "Always 1; the version is a label.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.events, m.failover, m.publish, build)
	return m
}

// Collect has every scrape ask source and prober too. It is called once.
func (m *Metrics) Collect(source Source, prober Prober) {
	m.registry.MustRegister(&collector{source, prober, m.log})
}

// CollectNotifier has every scrape ask the notifier too. It is called once.
func (m *Metrics) CollectNotifier(n Notifier) { m.registry.MustRegister(&notifications{n}) }

// Handler answers scrapes.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelWarn)})
}

// Event counts an event.
func (m *Metrics) Event(e upkeep.Event) { m.events.WithLabelValues(e.Kind).Inc() }

// Failover counts a removal that was proven.
func (m *Metrics) Failover(took time.Duration) { m.failover.Observe(took.Seconds()) }

// Publish counts a run of a publisher.
func (m *Metrics) Publish(publisher string, err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.publish.WithLabelValues(publisher, result).Inc()
}

// describe makes the description of one metric.
func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("upkeep_"+name, help, labels, nil)
}

var (
	poolMembers   = describe("pool_members", "Members of a pool by verdict.", "pool", "verdict")
	poolPublished = describe("pool_published_members", "Addresses that a pool publishes.", "pool")
	poolUnchecked = describe("pool_unchecked_members", "Members of a pool of which nothing can be learned, because the monitor cannot ask.", "pool")
	poolFrozen    = describe("pool_frozen", "1 while removals from a pool wait because the monitor may be cut off.", "pool")
	poolChanged   = describe("pool_changed_timestamp_seconds", "When the published set of a pool last changed.", "pool")
	memberUp      = describe("member_up", "1 for a member whose verdict is up, 0 for down or unknown.", "pool", "member")
	memberIn      = describe("member_published", "1 for a member that is published.", "pool", "member")
	memberRTT     = describe("member_rtt_seconds", "Smoothed round-trip time to a member.", "pool", "member")
	memberLoss    = describe("member_loss_ratio", "Share of probes lost on the path to a member while it is well.", "pool", "member")
	memberLast    = describe("member_probed_timestamp_seconds", "When a member was last probed.", "pool", "member")
	zoneSerial    = describe("zone_serial", "Serial that every name server of a zone ought to answer.", "zone")
	publisherBad  = describe("zone_publisher_failed", "1 while a publisher of a zone does not succeed.", "zone", "publisher", "index")
	serverInSync  = describe("zone_server_in_sync", "1 while a name server answers what was published.", "zone", "server")
	serverSerial  = describe("zone_server_serial", "Serial that a name server answers.", "zone", "server")
	serverLag     = describe("zone_server_lag_seconds", "Time from the latest publish to its proof on a name server.", "zone", "server")
	probes        = describe("probes_total", "Results of probes and heartbeats: ok, silent, refused, goodbye or void (nothing learned).", "result")
	probeTook     = describe("probe_duration_seconds", "Time to a good answer.")
	beats         = describe("heartbeats_received_total", "Heartbeat datagrams by what became of them: accepted, challenged (not provably fresh), replayed, malformed, stranger, forged.", "outcome")
	beatsLost     = describe("heartbeats_lost_total", "Heartbeat datagrams that this machine's receive queue had no room for.")
	skipped       = describe("probes_skipped_total", "Regular slots left out because the engine did not keep up.")
	timeouts      = describe("probe_timeouts_total", "Probes that were not answered in time.")
	putOff        = describe("probes_put_off_total", "Probes put off because this machine had no room for them.")
	pingLate      = describe("ping_late_replies_total", "Answers to pings after their timeout.")
	pingDuplicate = describe("ping_duplicate_replies_total", "Second answers to a ping.")
	pingStray     = describe("ping_stray_replies_total", "Answers to pings that were never sent, or from a wrong host.")
	enginePaused  = describe("engine_paused_seconds_total", "Time for which the engine was kept from running.")
	unwritten     = describe("database_events_waiting", "Events that wait in memory for a database that takes no writes.")
	databaseAway  = describe("database_away_timestamp_seconds", "Since when the database takes no writes, 0 while it does.")
	loopAge       = describe("loop_turned_timestamp_seconds", "When the deciding loop last ended a round; it turns each second at least.")
)

// collector reads everything at the time of a scrape: what is not asked for
// costs nothing.
type collector struct {
	source Source
	prober Prober
	log    *slog.Logger
}

// Describe implements prometheus.Collector. An unchecked collector describes
// nothing: which series there are depends on what is declared.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	w := writer{out}
	w.gauge(loopAge, seconds(c.source.Alive()))
	waiting, since := c.source.Unwritten()
	w.gauge(unwritten, float64(waiting))
	w.gauge(databaseAway, seconds(since))
	c.probes(w)
	pools, err := c.source.Pools(ctx)
	if err != nil {
		c.log.Error("collecting metrics of pools", "err", err)
	}
	members := 0
	for _, p := range pools {
		members += len(p.Members)
	}
	for _, p := range pools {
		w.pool(p)
		if members <= MaxMembers {
			for _, m := range p.Members {
				w.member(p.Name, m)
			}
		}
	}
	zones, err := c.source.Zones(ctx)
	if err != nil {
		c.log.Error("collecting metrics of zones", "err", err)
	}
	for _, z := range zones {
		w.zone(z)
	}
}

func (c *collector) probes(w writer) {
	s := c.prober.Stats()
	w.results(s.Results)
	for outcome := range beat.Outcomes {
		w.counter(beats, float64(s.Beats.Outcomes[outcome]), beat.Outcome(outcome).String())
	}
	w.counter(beatsLost, float64(s.Beats.Lost))
	w.counter(skipped, float64(s.Skipped))
	w.counter(timeouts, float64(s.Timeouts))
	w.counter(putOff, float64(s.PutOff))
	w.counter(pingLate, float64(s.Late))
	w.counter(pingDuplicate, float64(s.Duplicates))
	w.counter(pingStray, float64(s.Strays))
	w.counter(enginePaused, s.Paused.Seconds())
}

// writer sends values.
type writer struct{ out chan<- prometheus.Metric }

func (w writer) gauge(d *prometheus.Desc, v float64, labels ...string) {
	w.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (w writer) counter(d *prometheus.Desc, v float64, labels ...string) {
	w.out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func (w writer) results(t probe.Tally) {
	for result, n := range map[string]uint64{"ok": t.OK, "silent": t.Silent, "refused": t.Refused, "goodbye": t.Goodbye, "void": t.Void} {
		w.counter(probes, float64(n), result)
	}
	buckets, sum := map[float64]uint64{}, uint64(0)
	for i, bound := range probe.TookBounds {
		sum += t.Took[i]
		buckets[bound.Seconds()] = sum
	}
	sum += t.Took[len(probe.TookBounds)]
	w.out <- prometheus.MustNewConstHistogram(probeTook, sum, t.TookSum.Seconds(), buckets)
}

func (w writer) pool(p upkeep.PoolStatus) {
	count := map[upkeep.Verdict]float64{}
	unchecked := 0
	for _, m := range p.Members {
		count[m.Verdict]++
		if m.Unchecked {
			unchecked++
		}
	}
	for _, v := range []upkeep.Verdict{upkeep.Up, upkeep.Down, upkeep.Unknown} {
		w.gauge(poolMembers, count[v], p.Name, v.String())
	}
	w.gauge(poolPublished, float64(len(p.Published)), p.Name)
	w.gauge(poolUnchecked, float64(unchecked), p.Name)
	w.gauge(poolFrozen, truth(p.Frozen != ""), p.Name)
	w.gauge(poolChanged, seconds(p.ChangedAt), p.Name)
}

func (w writer) member(pool string, m upkeep.MemberStatus) {
	address := m.Address.String()
	w.gauge(memberUp, truth(m.Verdict == upkeep.Up), pool, address)
	w.gauge(memberIn, truth(m.Published), pool, address)
	w.gauge(memberRTT, time.Duration(m.RTT).Seconds(), pool, address)
	w.gauge(memberLoss, m.Loss, pool, address)
	w.gauge(memberLast, seconds(m.LastProbe), pool, address)
}

func (w writer) zone(z upkeep.ZoneStatus) {
	w.gauge(zoneSerial, float64(z.Serial), z.Name)
	for i, p := range z.Publishers { // a zone may have two of one type
		w.gauge(publisherBad, truth(p.Error != ""), z.Name, p.Type, strconv.Itoa(i))
	}
	for _, s := range z.Servers {
		w.gauge(serverInSync, truth(s.InSync), z.Name, s.Address)
		w.gauge(serverSerial, float64(s.Serial), z.Name, s.Address)
		w.gauge(serverLag, time.Duration(s.Lag).Seconds(), z.Name, s.Address)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds is a time as Prometheus writes it, zero for none.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}
