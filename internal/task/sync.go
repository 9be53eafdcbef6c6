package task

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"upkeep"
)

// texts are the sites of a site.sync as they came.
type texts struct {
	of    [][]byte
	known []bool
}

// DecodeSync reads and validates the payload of a site.sync as [Decode] does. Sites
// that are known by their text, byte for byte, were read and found to be good before:
// of these no more than the name and the generation is filled in, and [SiteSync.Read]
// reads the rest where it is needed. To read ten thousand sites takes longer than to
// see that they are what they were.
func DecodeSync(text []byte, known func(site []byte) (name string, generation int64, is bool)) (SiteSync, error) {
	sites, rest := split(text)
	if sites == nil || len(sites) > maxSites {
		payload, err := Decode(upkeep.JobSiteSync, text)
		if err != nil {
			return SiteSync{}, err
		}
		return payload.(SiteSync), nil
	}
	payload, err := read[SiteSync](rest)
	if err != nil {
		return SiteSync{}, fmt.Errorf("reading a %s job: %w", upkeep.JobSiteSync, err)
	}
	t := payload.(SiteSync)
	t.Sites, t.texts = make([]SiteApply, len(sites)), texts{sites, make([]bool, len(sites))}
	for i, one := range sites {
		var name string
		if name, t.Sites[i].Generation, t.texts.known[i] = known(one); t.texts.known[i] {
			t.Sites[i].Site.Name = name
			continue
		}
		site, err := read[SiteApply](one)
		if err != nil {
			return SiteSync{}, fmt.Errorf("reading a %s job: sites[%d]: %w", upkeep.JobSiteSync, i, err)
		}
		t.Sites[i] = site.(SiteApply)
	}
	if broken := t.Validate(); len(broken) > 0 {
		return SiteSync{}, &upkeep.InvalidError{Fields: broken}
	}
	return t, nil
}

// Read is the whole of a site.
func (t SiteSync) Read(i int) (SiteApply, error) {
	if !t.Known(i) {
		return t.Sites[i], nil
	}
	site, err := read[SiteApply](t.texts.of[i])
	if err != nil {
		return SiteApply{}, err
	}
	return site.(SiteApply), nil
}

// Known reports whether a site was known by its text, and was not read.
func (t SiteSync) Known(i int) bool { return t.texts.of != nil && t.texts.known[i] }

// Text is what a site is known by.
func (t SiteSync) Text(i int) ([]byte, error) {
	if t.texts.of != nil {
		return t.texts.of[i], nil
	}
	return t.Sites[i].Text()
}

// Text is the site without what is about the job that it came with: what it is known
// by.
func (t SiteApply) Text() ([]byte, error) {
	t.Batch, t.BatchSize, t.Hold = 0, 0, 0
	return json.Marshal(t)
}

// sitesFirst is how a site.sync begins that control has written.
const sitesFirst = `{"sites":[`

// split parts the texts of sites from the rest, which then has none. It returns nil
// where the text is not written as control writes it. It looks no closer at the sites
// than it must to find their ends.
func split(text []byte) (sites [][]byte, rest []byte) {
	left, is := bytes.CutPrefix(text, []byte(sitesFirst))
	if !is {
		return nil, nil
	}
	for {
		end, err := objectEnd(left)
		if err != nil {
			return nil, nil
		}
		sites = append(sites, left[:end:end])
		switch left = left[end:]; {
		case bytes.HasPrefix(left, []byte(",")):
			left = left[1:]
		case bytes.HasPrefix(left, []byte("]")) && !bytes.ContainsRune(left, '\\') && !bytes.Contains(bytes.ToLower(left), []byte(`sites"`)):
			return sites, append([]byte(sitesFirst), left...)
		default:
			return nil, nil
		}
	}
}

var errNoEnd = errors.New("the object has no end")

// objectEnd is how long the JSON object is that a text begins with.
func objectEnd(text []byte) (int, error) {
	if len(text) == 0 || text[0] != '{' {
		return 0, errNoEnd
	}
	depth, inText := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '{':
			depth++
		case c == '}':
			depth--
		}
		if depth == 0 {
			return i + 1, nil
		}
	}
	return 0, errNoEnd
}
