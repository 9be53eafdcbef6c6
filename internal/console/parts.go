package console

import (
	"bytes"
	"crypto/sha256"

	"golang.org/x/net/html"
)

// part is an element of a page that is swapped while the page is open.
type part struct {
	id, text string
	// sum is of the text without ages, which browsers keep themselves.
	sum [sha256.Size]byte
}

// partsOf cuts the parts out of a page, and finds its title.
func partsOf(page []byte) (parts []part, title string) {
	z := html.NewTokenizer(bytes.NewReader(page))
	var text bytes.Buffer
	hash := sha256.New()
	id, tag, depth, inTime, inTitle := "", "", 0, false, false
	for {
		kind := z.Next()
		if kind == html.ErrorToken {
			return parts, title
		}
		raw := append([]byte(nil), z.Raw()...)
		token := z.Token()
		switch {
		case token.Data == "time":
			inTime = kind == html.StartTagToken
		case token.Data == "title" && depth == 0:
			inTitle = kind == html.StartTagToken && title == ""
		case kind == html.TextToken && inTitle:
			title = token.Data
		}
		if depth == 0 {
			if kind != html.StartTagToken || !isPart(token) {
				continue
			}
			id, tag = attribute(token, "id"), token.Data
			text.Reset()
			hash.Reset()
		}
		switch {
		case token.Data != tag:
		case kind == html.StartTagToken:
			depth++
		case kind == html.EndTagToken:
			depth--
		}
		text.Write(raw)
		if !inTime || kind != html.TextToken {
			hash.Write(raw)
		}
		if depth == 0 {
			parts = append(parts, part{id, text.String(), [sha256.Size]byte(hash.Sum(nil))})
		}
	}
}

func isPart(token html.Token) bool {
	for _, a := range token.Attr {
		if a.Key == "data-live" {
			return true
		}
	}
	return false
}

func attribute(token html.Token, name string) string {
	for _, a := range token.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}
