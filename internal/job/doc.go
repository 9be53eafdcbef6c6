// Package job is control's side of jobs: which ones follow from a change, the
// queue, and the way to the agents and back.
//
// The jobs table is the truth and the contract with people. A job is made in the
// transaction of the change that it follows from, together with a row of River's
// (riverqueue.com) that carries its id and its server alone. That row is a wake-up
// call, no more: whoever is called looks at the job, and does nothing when there is
// nothing to do, so a call too many is harmless; every way by which a job becomes
// ready makes a call in its own transaction, so none is missing; and calls for a
// server whose agent is away are dropped, because its next link begins with asking
// for all jobs that wait.
//
// Sessions are called once more, and first, by the process itself as soon as the
// transaction is committed: to wait for River to take the call out of its queue, which
// is a transaction of its own, was a tenth of what a change takes until it is served.
//
// All calls are in one queue. A queue of its own for each connected server was
// turned down: River looks into each of them, and keeps a row about it, at all times;
// with hundreds of servers on SQLite these writes left no room for work, and many
// agents that came or went at a time could hold each other up without end.
//
// A call is handed to the [session] of its server, which claims jobs, puts together
// what the agent needs from what is declared at that moment, signs it and sends it.
// Outcomes of all servers are written down together, because a commit costs SQLite
// an fsync. A link that breaks puts its jobs back; the agent knows by generations
// what it has done.
package job
