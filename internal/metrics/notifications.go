package metrics

import "github.com/prometheus/client_golang/prometheus"

var (
	told        = describe("notifications_sent_total", "Messages that a receiver has taken.", "receiver")
	tellFailed  = describe("notification_failures_total", "Attempts to tell a receiver that did not succeed.", "receiver")
	tellExpired = describe("notification_events_expired_total", "Events that a receiver could not be told in time.", "receiver")
	tellWaiting = describe("notification_events_waiting", "Events that wait to be told to a receiver.", "receiver")
	tellFailing = describe("notification_failing_timestamp_seconds", "Since when a receiver cannot be told, 0 while it can.", "receiver")
)

// notifications reads the counts of receivers, of which there are as many as are
// declared.
type notifications struct{ notifier Notifier }

// Describe implements prometheus.Collector; see [collector.Describe].
func (n *notifications) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (n *notifications) Collect(out chan<- prometheus.Metric) {
	w := writer{out}
	for receiver, s := range n.notifier.Stats() {
		w.counter(told, float64(s.Sent), receiver)
		w.counter(tellFailed, float64(s.Failed), receiver)
		w.counter(tellExpired, float64(s.Expired), receiver)
		w.gauge(tellWaiting, float64(s.Waiting), receiver)
		w.gauge(tellFailing, seconds(s.Failing), receiver)
	}
}
