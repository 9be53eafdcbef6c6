// Package link is what control and agents say to each other, and the connection
// on which they say it. No work is done here: payloads are opaque, what is
// received is handed on.
//
// Trust is laid down once, at the join: the one-time token carries the SHA-256 of
// the certificate of control's authority, so the agent knows control before it
// says a word, and comes away with a certificate of its own, with the
// authority's, and with the public key by which jobs are signed. From then on the
// two meet over TLS 1.3 with certificates on both sides. Control never connects
// to an agent.
//
// Who holds the database, or the connection, still cannot make an agent do
// anything: [Open] takes a job that the signing key signed for this server and
// that has not expired, and nothing else. What the job may do is then up to the
// agent's own policy.
package link
