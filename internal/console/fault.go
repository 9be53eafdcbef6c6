package console

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/access"
)

// faultView is a page that says why there is no other.
type faultView struct {
	Text string
	// Again is the page that was asked for; Back one that is near to where a form was
	// sent, which cannot be asked for. One of them is empty.
	Again, Back string
}

func (c *Console) fault(w http.ResponseWriter, r *http.Request, status int, text string) {
	v := faultView{Text: text}
	if r.Method == http.MethodPost {
		v.Back = c.near(r)
	} else {
		v.Again = localPath(r.URL.RequestURI())
	}
	c.render(w, r, status, "fault.html", http.StatusText(status), v)
}

// broken answers for an error that is upkeep's own.
func (c *Console) broken(w http.ResponseWriter, r *http.Request, err error) {
	c.o.Log.Error("reading for a page", "err", err)
	c.fault(w, r, http.StatusInternalServerError, "This cannot be shown just now. The log of upkeep says why.")
}

// near is the page nearest to where a form was sent, by its path: itself, or what it
// lies below. "" where that is the first page, which every fault leads to.
func (c *Console) near(r *http.Request) string {
	_, pattern, _ := strings.Cut(r.Pattern, " ")
	path := r.URL.EscapedPath()
	for strings.Count(pattern, "/") > 0 && pattern != "/" && strings.Count(pattern, "/") == strings.Count(path, "/") {
		if c.routes["GET "+pattern] != nil {
			return path
		}
		pattern, path = pattern[:strings.LastIndexByte(pattern, '/')], path[:strings.LastIndexByte(path, '/')]
	}
	return ""
}

// maxForm bounds what a form may carry, in bytes.
const maxForm = 1 << 20

// maxFormText is the same for people.
const maxFormText = "1 MB (1,048,576 bytes)"

// Of a form that is too large, so many bytes more are heard, so that the browser comes
// to read the answer; and no form may take longer to come than this.
const (
	maxHeard = 16 << 20
	formTime = 30 * time.Second
)

// formType is how browsers send forms that have no files in them.
const formType = "application/x-www-form-urlencoded"

// keptInBrowser is what people can do about a form that upkeep could not read.
const keptInBrowser = " Nothing was done. What you typed is where you typed it: go back in your browser."

// readForm reads what a form carries, or says what is wrong with it.
func (c *Console) readForm(w http.ResponseWriter, r *http.Request) bool {
	control, whole := http.NewResponseController(w), r.Body
	_ = control.SetReadDeadline(time.Now().Add(formTime)) // a test's writer has none
	r.Body = http.MaxBytesReader(w, whole, maxForm)
	if kind := r.Header.Get("Content-Type"); kind != "" {
		if media, _, err := mime.ParseMediaType(kind); err != nil || media != formType {
			c.fault(w, r, http.StatusUnsupportedMediaType, fmt.Sprintf("What was sent is %s, and forms are sent as %s.", upkeep.Printable(fmt.Sprintf("%.100q", kind)), formType)+keptInBrowser)
			return false
		}
	}
	err := r.ParseForm()
	if err == nil {
		_ = control.SetReadDeadline(time.Time{}) // what is done may take longer
		return true
	}
	status, text := http.StatusBadRequest, "The form cannot be read: "+upkeep.Printable(fmt.Sprintf("%.200s", err))+"."
	var large *http.MaxBytesError
	var slow net.Error
	switch {
	case errors.As(err, &large):
		_, _ = io.CopyN(io.Discard, whole, maxHeard) // whether it ends sooner is its sender's
		status, text = http.StatusRequestEntityTooLarge, "The form is too large: it may have "+maxFormText+"."
		if access.From(r.Context()).Staff {
			text += " Larger documents are taken by upkeep apply."
		}
	case errors.As(err, &slow) && slow.Timeout():
		status, text = http.StatusRequestTimeout, fmt.Sprintf("The form did not come within %s.", formTime)
	}
	c.o.Log.Warn("a form cannot be read", "path", r.URL.Path, "err", err)
	c.fault(w, r, status, text+keptInBrowser)
	return false
}
