package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"upkeep"
)

// A Remote is a file on a web server, read by ranges. What it reads is of one
// version of the file: if that changes on the server, reading fails.
type Remote struct {
	ctx    context.Context
	url    string // without a password, for messages
	ask    *url.URL
	client *http.Client
	size   int64
	tag    string // ETag, or the time of the last change

	mu   sync.Mutex
	tail []byte // the end of the file, which came with the first answer
}

// ErrNoRanges is a server that gives files as a whole only.
var ErrNoRanges = errors.New("the server gives no parts of files")

const (
	tries = 6
	// silence is how long a server may send nothing.
	silence = 30 * time.Second
)

// IsURL reports whether a name is that of a file on a web server.
func IsURL(name string) bool {
	return strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://")
}

// OpenRemote asks for the end of a file, and thereby for its size. The context is
// for all reading.
func OpenRemote(ctx context.Context, address string) (*Remote, error) {
	r, err := newRemote(ctx, address)
	if err != nil {
		return nil, err
	}
	return r, r.retry(r.first)
}

func newRemote(ctx context.Context, address string) (*Remote, error) {
	ask, err := url.Parse(address)
	if err != nil || ask.Host == "" || ask.Scheme != "http" && ask.Scheme != "https" {
		return nil, fmt.Errorf("%w: %q is no address of a file on a web server", upkeep.ErrRefused, address)
	}
	return &Remote{ctx: ctx, url: ask.Redacted(), ask: ask, client: &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, ResponseHeaderTimeout: silence, MaxIdleConnsPerHost: 8, IdleConnTimeout: silence, ForceAttemptHTTP2: true,
	}}}, nil
}

// Size is the size of the file on the server.
func (r *Remote) Size() int64 { return r.size }

// Close lets go of connections that are kept.
func (r *Remote) Close() error {
	r.client.CloseIdleConnections()
	return nil
}

// fatal is an answer that does not get better by asking again.
type fatal struct{ error }

func (f fatal) Unwrap() error { return f.error }

func (r *Remote) retry(try func() error) error {
	var err error
	for n := range tries {
		if n > 0 {
			wait := time.NewTimer(time.Duration(1<<n) * 50 * time.Millisecond)
			select {
			case <-r.ctx.Done():
				wait.Stop()
				return context.Cause(r.ctx)
			case <-wait.C:
			}
		}
		var final fatal
		if err = try(); err == nil || errors.As(err, &final) {
			break
		}
		if r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("getting %s: %w", r.url, err)
	}
	return nil
}

// get asks for a range; the caller closes the body, which ends with an error when
// the server falls silent.
func (r *Remote) get(wanted string) (*http.Response, error) {
	ctx, stop := context.WithCancelCause(r.ctx)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.ask.String(), nil)
	if err != nil {
		stop(nil)
		return nil, fatal{err}
	}
	request.Header.Set("Accept-Encoding", "identity")
	request.Header.Set("User-Agent", "upkeep")
	if wanted != "" {
		request.Header.Set("Range", "bytes="+wanted)
	}
	if r.tag != "" {
		request.Header.Set("If-Range", r.tag)
	}
	response, err := r.client.Do(request)
	if err != nil {
		stop(nil)
		var named *url.Error
		if errors.As(err, &named) {
			err = named.Err // the address is said already, without its password
		}
		return nil, err
	}
	response.Body = &watched{ReadCloser: response.Body, stop: stop, timer: time.AfterFunc(silence, func() {
		stop(fmt.Errorf("the server has sent nothing for %s", silence))
	}), ctx: ctx}
	return response, nil
}

// watched is a body whose server must not fall silent.
type watched struct {
	io.ReadCloser
	ctx   context.Context
	stop  context.CancelCauseFunc
	timer *time.Timer
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.ReadCloser.Read(b)
	w.timer.Reset(silence)
	if err != nil && w.ctx.Err() != nil {
		err = context.Cause(w.ctx)
	}
	return n, err
}

func (w *watched) Close() error {
	w.timer.Stop()
	err := w.ReadCloser.Close()
	w.stop(nil)
	return err
}

func (r *Remote) first() error {
	response, err := r.get("-" + strconv.Itoa(tailSize))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if err := r.status(response); err != nil {
		return err
	}
	from, to, size, err := contentRange(response.Header.Get("Content-Range"))
	if err != nil || to != size-1 || to-from >= tailSize {
		return fatal{fmt.Errorf("the server answers a question for the last bytes with the range %q", upkeep.Printable(response.Header.Get("Content-Range")))}
	}
	tail := make([]byte, to-from+1)
	if _, err := io.ReadFull(response.Body, tail); err != nil {
		return err
	}
	r.size, r.tail = size, tail
	// A weak tag names no bytes, and If-Range takes none.
	if r.tag = response.Header.Get("ETag"); r.tag == "" || strings.HasPrefix(r.tag, "W/") {
		r.tag = response.Header.Get("Last-Modified")
	}
	return nil
}

// status takes a part of a file and nothing else.
func (r *Remote) status(response *http.Response) error {
	code := response.StatusCode
	switch {
	case code == http.StatusPartialContent:
		return nil
	case code == http.StatusOK && r.size > 0:
		return fatal{fmt.Errorf("%w: the file was changed on the server", upkeep.ErrConflict)}
	case code == http.StatusOK, code == http.StatusRequestedRangeNotSatisfiable:
		return fatal{ErrNoRanges}
	case code == http.StatusNotFound, code == http.StatusGone:
		return fatal{fmt.Errorf("%w: the server answers %d", upkeep.ErrNotFound, code)}
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code >= 500:
		return fmt.Errorf("the server answers %s", upkeep.Printable(response.Status))
	}
	return fatal{fmt.Errorf("the server answers %s", upkeep.Printable(response.Status))}
}

func contentRange(header string) (from, to, size int64, err error) {
	n, err := fmt.Sscanf(header, "bytes %d-%d/%d", &from, &to, &size)
	if err != nil || n != 3 || from < 0 || to < from || to >= size {
		return 0, 0, 0, errors.New("no range")
	}
	return from, to, size, nil
}

// ReadAt implements [io.ReaderAt]. What was cut off is asked for again from where
// it ended.
func (r *Remote) ReadAt(b []byte, offset int64) (int, error) {
	if offset < 0 || offset >= r.size {
		return 0, io.EOF
	}
	want := int(min(int64(len(b)), r.size-offset))
	done := r.fromTail(b[:want], offset)
	err := r.retry(func() error {
		for done < want {
			n, err := r.part(b[done:want], offset+int64(done))
			if done += n; err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && want < len(b) {
		err = io.EOF
	}
	return done, err
}

func (r *Remote) fromTail(b []byte, offset int64) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	start := r.size - int64(len(r.tail))
	if offset < start {
		return 0
	}
	return copy(b, r.tail[offset-start:])
}

// part gets what one answer gives.
func (r *Remote) part(b []byte, offset int64) (int, error) {
	response, err := r.get(fmt.Sprintf("%d-%d", offset, offset+int64(len(b))-1))
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if err := r.status(response); err != nil {
		return 0, err
	}
	from, _, size, err := contentRange(response.Header.Get("Content-Range"))
	if err != nil || from != offset {
		return 0, fatal{fmt.Errorf("the server answers with the range %q to a question for byte %d", upkeep.Printable(response.Header.Get("Content-Range")), offset)}
	}
	if size != r.size {
		return 0, fatal{fmt.Errorf("%w: the file was changed on the server", upkeep.ErrConflict)}
	}
	n, err := io.ReadFull(response.Body, b)
	if n == len(b) {
		return n, nil
	}
	return n, err
}

// Fetch writes the whole file into an empty one, for servers that give no parts
// and for files that are read from start to end.
func Fetch(ctx context.Context, address string, out *os.File, progress func(done, total int64)) error {
	r, err := newRemote(ctx, address)
	if err != nil {
		return err
	}
	defer r.Close()
	return r.retry(func() error {
		response, err := r.get("")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return r.status(response)
		}
		from := &counted{Reader: response.Body, ctx: ctx, total: response.ContentLength, progress: progress}
		n, err := io.Copy(io.NewOffsetWriter(out, 0), from)
		if err != nil {
			return err
		}
		return out.Truncate(n)
	})
}
