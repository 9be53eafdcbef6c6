package pack

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"upkeep"
)

// site serves one file, and does to its answers what a test wants.
type site struct {
	mu      sync.Mutex
	content []byte
	tag     string
	sent    atomic.Int64
	// change is asked before each answer; true means that it answered.
	change func(w http.ResponseWriter, r *http.Request) bool
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.change != nil && s.change(w, r) {
		return
	}
	s.mu.Lock()
	content, tag := s.content, s.tag
	s.mu.Unlock()
	w.Header().Set("ETag", tag)
	http.ServeContent(&counting{w, &s.sent}, r, "", time.Time{}, bytes.NewReader(content))
}

type counting struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counting) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return c.ResponseWriter.Write(b)
}

func serve(t *testing.T, s *site) string {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return server.URL + "/web.zst"
}

func remote(t *testing.T, ctx context.Context, address string) *Image {
	t.Helper()
	r, err := OpenRemote(ctx, address)
	must(t, err)
	t.Cleanup(func() { r.Close() })
	image, err := Open(r, r.Size())
	must(t, err)
	return image
}

// A run that is ended leaves what it got, and the next one gets the rest only.
func TestUnpackGoesOnOverHTTP(t *testing.T) {
	file := patchy(t, upkeep.ImageSparse)
	want := content(t, file.Name())
	s := &site{content: packOf(t, file, Options{}), tag: `"1"`}
	address := serve(t, s)
	out := filepath.Join(t.TempDir(), "web.img")

	ctx, stop := context.WithCancel(context.Background())
	_, err := remote(t, ctx, address).Unpack(ctx, out, 0o600, UnpackOptions{Keep: true, Workers: 1, Progress: func(done, total int64) {
		if done > total/2 {
			stop()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("stopped, it says %v", err)
	}
	left, err := Leftover(out)
	if err != nil || left == "" {
		t.Fatalf("nothing is left to go on with: %v", err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Fatal("half an image has the image's name")
	}
	// Somebody wrote where the image has zeros, and over what was right.
	partly, err := os.OpenFile(left, os.O_WRONLY, 0)
	must(t, err)
	for _, at := range []int64{10, 3 << 20, 21 << 20, 40<<20 + 1} {
		_, err := partly.WriteAt([]byte("not of the image"), at)
		must(t, err)
	}
	must(t, partly.Close())

	before := s.sent.Load()
	result, err := remote(t, context.Background(), address).Unpack(context.Background(), out, 0o600, UnpackOptions{Keep: true})
	must(t, err)
	if !bytes.Equal(content(t, out), want) {
		t.Fatal("what was gone on with is something else")
	}
	if again := s.sent.Load() - before; result.Resumed == 0 || again > int64(len(s.content))*3/4 {
		t.Errorf("%d bytes came again of %d, %d were there", again, len(s.content), result.Resumed)
	}
	if left, err := Leftover(out); left != "" || err != nil {
		t.Errorf("%s is left, %v", left, err)
	}
}

func TestTwoUnpackOneFile(t *testing.T) {
	file := patchy(t, upkeep.ImageSparse)
	image := open(t, packOf(t, file, Options{}))
	out := filepath.Join(t.TempDir(), "web.img")
	first, err := openPartial(out)
	must(t, err)
	defer first.Close()
	if _, err := image.Unpack(context.Background(), out, 0o600, UnpackOptions{Keep: true}); !errors.Is(err, upkeep.ErrConflict) {
		t.Errorf("a second run beside the first: %v", err)
	}
	must(t, os.Symlink("/etc/hostname", filepath.Join(filepath.Dir(out), partialName("other.img"))))
	if _, err := image.Unpack(context.Background(), filepath.Join(filepath.Dir(out), "other.img"), 0o600, UnpackOptions{Keep: true}); err == nil {
		t.Error("a symbolic link in the place of the file was followed")
	}
}

func TestServersThatFail(t *testing.T) {
	file := patchy(t, upkeep.ImageSparse)
	want := content(t, file.Name())
	packed := packOf(t, file, Options{})
	unpack := func(t *testing.T, s *site) error {
		t.Helper()
		s.content, s.tag = packed, `"1"`
		r, err := OpenRemote(context.Background(), serve(t, s))
		if err != nil {
			return err
		}
		defer r.Close()
		image, err := Open(r, r.Size())
		if err != nil {
			return err
		}
		out := filepath.Join(t.TempDir(), "web.img")
		if _, err := image.Unpack(context.Background(), out, 0o600, UnpackOptions{Keep: true}); err != nil {
			return err
		}
		if !bytes.Equal(content(t, out), want) {
			t.Error("what came is something else")
		}
		return nil
	}
	var asked atomic.Int64
	once := func(n int64, what func(w http.ResponseWriter, r *http.Request)) func(http.ResponseWriter, *http.Request) bool {
		asked.Store(0)
		return func(w http.ResponseWriter, r *http.Request) bool {
			if asked.Add(1) != n {
				return false
			}
			what(w, r)
			return true
		}
	}
	t.Run("busy for a while", func(t *testing.T) {
		must(t, unpack(t, &site{change: once(1, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })}))
	})
	t.Run("hangs up in the middle", func(t *testing.T) {
		s := &site{}
		s.change = once(2, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", s.tag)
			short := &cutting{ResponseWriter: w, left: 100_000}
			http.ServeContent(short, r, "", time.Time{}, bytes.NewReader(s.content))
		})
		must(t, unpack(t, s))
	})
	t.Run("changed meanwhile", func(t *testing.T) {
		s := &site{}
		s.change = func(http.ResponseWriter, *http.Request) bool {
			if asked.Add(1) == 2 {
				s.mu.Lock()
				s.tag = `"2"`
				s.mu.Unlock()
			}
			return false
		}
		asked.Store(0)
		if err := unpack(t, s); !errors.Is(err, upkeep.ErrConflict) {
			t.Errorf("changed on the server: %v", err)
		}
	})
	t.Run("no parts", func(t *testing.T) {
		s := &site{}
		s.change = func(w http.ResponseWriter, _ *http.Request) bool { _, err := w.Write(packed); return err == nil }
		if err := unpack(t, s); !errors.Is(err, ErrNoRanges) {
			t.Errorf("a server without ranges: %v", err)
		}
	})
	t.Run("not there", func(t *testing.T) {
		s := &site{change: func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(404); return true }}
		if err := unpack(t, s); !errors.Is(err, upkeep.ErrNotFound) {
			t.Errorf("a file that is not there: %v", err)
		}
	})
	t.Run("other parts than asked for", func(t *testing.T) {
		s := &site{change: func(w http.ResponseWriter, r *http.Request) bool {
			if asked.Add(1) > 1 {
				r.Header.Set("Range", "bytes=0-99")
			}
			return false
		}}
		asked.Store(0)
		if err := unpack(t, s); err == nil {
			t.Error("taken")
		}
	})
}

// cutting hangs up after some bytes.
type cutting struct {
	http.ResponseWriter
	left int
}

func (c *cutting) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b[:min(len(b), c.left)])
	if c.left -= n; c.left == 0 {
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func TestAddresses(t *testing.T) {
	for _, bad := range []string{"http://", "ftp://host/x", "https://[::1", "file:///etc/passwd"} {
		if _, err := OpenRemote(context.Background(), bad); !errors.Is(err, upkeep.ErrRefused) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	_, err := OpenRemote(ctx, "http://me:secret@127.0.0.1:1/x")
	if err == nil || bytes.Contains([]byte(err.Error()), []byte("secret")) {
		t.Errorf("a password is said: %v", err)
	}
	var _ io.ReaderAt = (*Remote)(nil)
}
