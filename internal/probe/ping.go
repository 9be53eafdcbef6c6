package probe

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"upkeep"
)

// pingCheck asks by ICMP echo. All pings of the engine share one socket for each
// address family.
type pingCheck struct{}

func preparePing(*Engine, upkeep.Check) (asker, error) { return pingCheck{}, nil }

// preflightPing says which of the three permissions is missing.
func preflightPing(*Engine, upkeep.Check) error {
	s, err := openICMP(false, 0)
	if err == nil {
		unix.Close(s.fd)
		return nil
	}
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return err
	}
	allowed := "unknown"
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ping_group_range"); err == nil {
		allowed = strings.Join(strings.Fields(string(text)), " ")
	}
	return upkeep.WithHint(
		fmt.Errorf("a ping check is not permitted: the process is not root (uid %d), lacks CAP_NET_RAW, and its group %d is not in net.ipv4.ping_group_range (%s): %w",
			os.Geteuid(), os.Getegid(), allowed, err),
		fmt.Sprintf("give one of the three: run as root; setcap cap_net_raw+ep on the binary or AmbientCapabilities=CAP_NET_RAW in the unit; sysctl -w net.ipv4.ping_group_range=\"%d %d\"",
			os.Getegid(), os.Getegid()))
}

// pinger is the part of the loop that all pings share.
type pinger struct {
	sockets [2]*icmpSocket // IPv4 and IPv6; nil until needed
	tried   [2]time.Time   // when opening last failed
	failed  [2]error
	queue   [2][]*member // to be sent in this round
	block   cipher.Block // seals tokens
	scratch [aes.BlockSize]byte
	lost    [2]time.Duration // when answers were last found to be lost
	unread  int              // sent since answers were taken in; bounds what can pile up
	id      uint16
}

func (p *pinger) init() {
	var key [18]byte
	_, _ = rand.Read(key[:]) // never fails
	block, err := aes.NewCipher(key[:16])
	if err != nil {
		panic(fmt.Sprintf("making a cipher with a key of 16 bytes: %v", err))
	}
	p.block = block
	p.id = binary.BigEndian.Uint16(key[16:])
}

func (p *pinger) close() {
	for _, s := range p.sockets {
		if s != nil {
			unix.Close(s.fd)
		}
	}
}

// seal is a keyed pseudo-random function of what else a token holds.
func (p *pinger) seal(index int32, stamp int64) uint64 {
	b := p.scratch[:]
	binary.BigEndian.PutUint32(b, uint32(index))
	binary.BigEndian.PutUint64(b[4:], uint64(stamp))
	binary.BigEndian.PutUint32(b[12:], 0)
	p.block.Encrypt(b, b)
	return binary.BigEndian.Uint64(b)
}

// socket opens the socket of a family when it is needed first. A refusal is
// believed for ten seconds.
func (p *pinger) socket(l *loop, family int) (*icmpSocket, error) {
	if p.sockets[family] != nil {
		return p.sockets[family], nil
	}
	if p.failed[family] != nil && time.Since(p.tried[family]) < 10*time.Second {
		return nil, p.failed[family]
	}
	s, err := openICMP(family == 1, p.id)
	if err == nil {
		if err = l.poll(s.fd, unix.EPOLLIN, int32(eventPing4-family), 0); err != nil {
			unix.Close(s.fd)
		}
	}
	if err != nil {
		p.tried[family], p.failed[family] = time.Now(), err
		return nil, err
	}
	p.sockets[family], p.failed[family] = s, nil
	return s, nil
}

func family(m *member) int {
	if m.addr.Is4() {
		return 0
	}
	return 1
}

// start queues the ping; flush sends it in this very round.
func (pingCheck) start(l *loop, m *member) {
	f := family(m)
	if _, err := l.ping.socket(l, f); err != nil {
		l.finish(m, Result{Void: true, Reason: clean(err.Error())})
		return
	}
	l.ping.queue[f] = append(l.ping.queue[f], m)
	if len(l.ping.queue[f]) == sendBatch {
		l.ping.flush(l)
		if l.ping.unread >= 32*sendBatch {
			l.ping.receive(l)
		}
	}
}

func (pingCheck) expire(l *loop, m *member) Result {
	if m.sent <= l.ping.lost[family(m)] {
		return Result{Void: true, Reason: "no answer, but some were lost in this machine's own queue"}
	}
	return Result{Reason: reasonSilent(m.timeout)}
}

func (pingCheck) cancel(*loop, *member) {}

// flush sends what is queued.
func (p *pinger) flush(l *loop) {
	for f := range p.queue {
		queue := p.queue[f]
		if len(queue) == 0 {
			continue
		}
		p.queue[f] = p.queue[f][:0]
		s := p.sockets[f]
		for i, m := range queue {
			m.stamp = l.clock.raw()
			s.fill(i, m.addr, token{m.index, m.stamp, p.seal(m.index, m.stamp)})
		}
		p.unread += len(queue)
		for i := 0; i < len(queue); {
			sent, err := s.send(i, len(queue))
			i += sent
			if err != nil {
				m := queue[i]
				i++
				l.fail(m, err)
			}
		}
	}
}

// receive takes in all answers that the kernel holds.
func (p *pinger) receive(l *loop) {
	p.unread = 0
	for f, s := range p.sockets {
		if s == nil {
			continue
		}
		for total := 0; total < receiveMost; {
			n := s.receive()
			if n == 0 {
				break
			}
			wall, raw := time.Now().UnixNano(), l.clock.raw()
			drops := s.drops
			for i := range n {
				at := raw
				// The clock may be stepped between the kernel's stamp and now;
				// an answer is neither from the future nor older than the probe.
				if stamp := s.arrival(i); stamp != 0 && stamp < wall {
					at = raw - (wall - stamp)
				}
				if a, ok := s.read(i); ok {
					p.match(l, a, at)
				}
			}
			if s.drops != drops {
				l.stats.Overflow += uint64(s.drops - drops)
				p.lost[f] = l.clock.now()
				l.complain("answers to pings were lost in the socket's queue", "lost", l.stats.Overflow)
			}
			if total += n; n < receiveBatch {
				break
			}
		}
	}
}

// match gives an answer to the member that it belongs to, or counts it.
func (p *pinger) match(l *loop, a answer, at int64) {
	t := a.token
	if t.index < 0 || int(t.index) >= len(l.table) || t.seal != p.seal(t.index, t.stamp) {
		l.stats.Strays++
		return
	}
	m := l.table[t.index]
	if m == nil || m.stamp < t.stamp || m.addr.WithZone("") != a.to {
		l.stats.Strays++ // of a member that is gone, or sent on by another host
		return
	}
	rtt := time.Duration(max(at-t.stamp, int64(time.Microsecond)))
	switch {
	case m.phase == flying && m.stamp == t.stamp:
		m.answered = t.stamp
		if a.refused != "" {
			l.finish(m, Result{Refused: true, Reason: a.refused})
			return
		}
		// By the loop's clock less time may have passed than by the system's.
		l.finish(m, Result{OK: true, RTT: min(rtt, max(l.clock.now()-m.sent, time.Microsecond))})
	case a.refused != "":
		l.stats.Late++
	case t.stamp <= m.answered:
		l.stats.Duplicates++
	default:
		l.stats.Late++
		m.answered = t.stamp
		if rtt <= time.Duration(m.def.check.Timeout) {
			l.late(m, rtt)
		}
	}
}

// late tells the observer of an answer that a shortened timeout did not wait for.
func (l *loop) late(m *member, rtt time.Duration) {
	next := m.observe(Result{At: time.Now(), OK: true, Late: true, RTT: rtt})
	if m.phase == idle {
		l.follow(m, next)
	}
}
