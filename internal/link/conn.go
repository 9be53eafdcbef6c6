package link

import (
	"context"
	"errors"
	"fmt"
)

// Conn is one side of a link.
//
// Send may be called by several goroutines. It waits while the other side takes
// nothing, which on the network ends the link after half a minute; a context that ends before the message is on its way sends nothing and
// leaves the link as it is. That it returned nil does not say that the other side
// has received the message. A message that cannot be sent (too long, or not valid)
// is an error that leaves the link as it is.
//
// Receive is called by one goroutine at a time. A context that ends leaves the link
// as it is, and loses no message.
//
// Close ends the link at both sides, and may be called more than once. What was
// sent before can still be received there. After the end of the link, Send and
// Receive return an error that is [ErrClosed] and says why it ended.
type Conn interface {
	Send(context.Context, Message) error
	Receive(context.Context) (Message, error)
	Close() error
}

// ErrClosed says that a link has ended.
var ErrClosed = errors.New("the link is closed")

// errHere is ErrClosed of a link that this side has closed, which is no news there.
var errHere = fmt.Errorf("%w at this side", ErrClosed)

// queued is how many received messages wait for Receive before the other side
// has to: enough that the two do not take turns, and a bound.
const queued = 16
