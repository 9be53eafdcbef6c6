package console

import (
	"crypto/sha256"
	"encoding/xml"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// badgeTexts are what badges say.
var badgeTexts = map[string]string{fareUp: "up", fareDegraded: "degraded", fareDown: "down", fareUnknown: "not known", fareOut: "out of service"}

// badge is drawn from attributes alone, so that its policy can refuse all styles.
var badge = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("badge").Parse(`<svg xmlns="http://www.w3.org/2000/svg" width="{{.Width}}" height="20" role="img" aria-label="{{.Title}}: {{.Text}}">` +
		`<title>{{.Title}}: {{.Text}}</title><rect width="{{.Width}}" height="20" rx="3" fill="#1d1c1a"/>` +
		`<path d="M{{.Left}} 0h{{.Tail}}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-{{.Tail}}z" fill="{{.Fill}}"/>` +
		`<g font-family="Verdana,DejaVu Sans,sans-serif" font-size="11"><text x="7" y="14" fill="#faf9f6" textLength="{{.TitleWidth}}" lengthAdjust="spacingAndGlyphs">{{.Title}}</text>` +
		`<text x="{{.TextAt}}" y="14" fill="{{.Ink}}" textLength="{{.TextWidth}}" lengthAdjust="spacingAndGlyphs">{{.Text}}</text></g></svg>` + "\n"))
})

type badgeView struct {
	Title, Text, Fill, Ink                           string
	Width, Left, Tail, TitleWidth, TextWidth, TextAt int
}

// maxBadge is how many characters of a title a badge has room for.
const maxBadge = 40

func drawBadge(title, state string) badgeView {
	const glyph, pad = 7, 7 // of Verdana at 11 pixels, on average
	if utf8.RuneCountInString(title) > maxBadge {
		title = string([]rune(title)[:maxBadge-1]) + "…"
	}
	v := badgeView{Title: title, Text: badgeTexts[state], Fill: "#e4e1da", Ink: "#1d1c1a"}
	if state == fareDown || state == fareDegraded {
		v.Fill, v.Ink = "#bf3617", "#ffffff"
	}
	v.TitleWidth, v.TextWidth = glyph*utf8.RuneCountInString(v.Title), glyph*utf8.RuneCountInString(v.Text)
	v.Left = v.TitleWidth + 2*pad
	v.Width = v.Left + v.TextWidth + 2*pad
	v.Tail, v.TextAt = v.Width-v.Left-3, v.Left+pad
	return v
}

func (c *Console) statusBadge(w http.ResponseWriter, r *http.Request) {
	v, is := c.public(w, r)
	if !is {
		return
	}
	var body strings.Builder
	if err := badge().Execute(&body, drawBadge(v.Title, v.Fare)); err != nil {
		c.notNow(w, err)
		return
	}
	w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin") // it is for pages of others
	servePublic(w, r, "image/svg+xml", []byte(body.String()))
}

var errPast = errors.New("what happened cannot be read")

// atomFeed is a feed as RFC 4287 has it. Its links are relative: by which name a
// reader comes is the reader's to know.
type atomFeed struct {
	XMLName xml.Name    `xml:"http://www.w3.org/2005/Atom feed"`
	ID      string      `xml:"id"`
	Title   string      `xml:"title"`
	Updated string      `xml:"updated"`
	Author  atomAuthor  `xml:"author"`
	Links   []atomLink  `xml:"link"`
	Entries []atomEntry `xml:"entry"`
}

type atomAuthor struct {
	Name string `xml:"name"`
}

type atomLink struct {
	Rel  string `xml:"rel,attr"`
	Type string `xml:"type,attr"`
	Href string `xml:"href,attr"`
}

type atomEntry struct {
	ID        string   `xml:"id"`
	Title     string   `xml:"title"`
	Published string   `xml:"published"`
	Updated   string   `xml:"updated"`
	Link      atomLink `xml:"link"`
	Content   string   `xml:"content"`
}

func (c *Console) statusFeed(w http.ResponseWriter, r *http.Request) {
	v, is := c.public(w, r)
	if !is {
		return
	}
	if v.Lost { // an empty feed would tell readers that nothing ever happened
		c.notNow(w, errPast)
		return
	}
	body, err := xml.MarshalIndent(feedOf(v, firstDay(c.o.Now())), "", "  ")
	if err != nil {
		c.notNow(w, err)
		return
	}
	servePublic(w, r, "application/atom+xml; charset=utf-8", append([]byte(xml.Header), append(body, '\n')...))
}

// feedOf is a feed of the incidents of a pool since first.
func feedOf(v statusView, first time.Time) atomFeed {
	page := atomLink{"alternate", "text/html", v.Path}
	f := atomFeed{ID: stableID(v.pool), Title: v.Title, Updated: stamp(first), Author: atomAuthor{v.Title},
		Links: []atomLink{page, {"self", "application/atom+xml", v.Path + "/feed.xml"}}}
	for i, one := range v.Incidents {
		e := atomEntry{ID: stableID(v.pool + "/" + stamp(one.From)), Title: one.What, Published: stamp(one.From), Updated: stamp(one.From), Link: page,
			Content: "Since " + one.Began.Exact + "."}
		if !one.Ongoing {
			e.Updated, e.Content = stamp(one.To), fmt.Sprintf("From %s to %s, which is %s.", one.Began.Exact, one.End.Exact, one.Lasted)
		}
		if i == 0 {
			f.Updated = e.Updated
		}
		f.Entries = append(f.Entries, e)
	}
	return f
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// stableID is an id that stays the same by whatever name a feed is read: a UUID of
// version 8, of the hash of what it is for.
func stableID(of string) string {
	sum := sha256.Sum256([]byte("upkeep status page " + of))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}
