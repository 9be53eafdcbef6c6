// Package agent is upkeep on a server: it carries out signed jobs there, within
// the limits of a policy file that control cannot reach.
//
// [Root] is the privileged half. It believes nobody: a job is verified, its kind
// looked up in the policy, its payload read and validated by the type that
// control uses, its generation compared with what was done before, and only then
// is it given to the handler of its kind. Each kind is one file, and a line in
// the registry. Jobs for one object run one after another, all others side by
// side; a job that fails, or that panics, is the end of itself alone.
//
// [Front] is the unprivileged half. It holds the link to control and reads what
// comes over it. Under [Run] it is a process of its own, with a user of its own
// and nothing but descriptors; whoever takes it over can hand signed jobs to root
// in another order, keep them back, or lie to control about what became of them,
// and nothing else.
package agent
