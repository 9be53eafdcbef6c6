package console

import (
	"context"
	"slices"
	"strings"

	"upkeep"
)

// concerns has the pages that can be followed, by pattern. Each says whether what
// happened to an object may change the page at a path. Too often costs a moment; too
// rarely leaves the page behind until it is made anew all the same.
var concerns = map[string]func(path, object string) bool{
	"GET /{$}": func(_, object string) bool { return !among(object, upkeep.KindSite, "job") },
	"GET /pools/{name}": func(path, object string) bool {
		return among(object, upkeep.KindZone, "") || below(object, upkeep.KindPool, path)
	},
	"GET /events": func(_, object string) bool { return !among(object, "job") },
	"GET /zones/{name}": func(path, object string) bool {
		return among(object, upkeep.KindPool, "") || below(object, upkeep.KindZone, path)
	},
	"GET /audit":               func(_, object string) bool { return !among(object, "job") },
	"GET /zones":               func(_, object string) bool { return among(object, upkeep.KindZone, "") },
	"GET /servers":             aboutServers,
	"GET /servers/{name}":      aboutServers,
	"GET /images":              aboutServers,
	"GET /images/{name}/image": aboutServers,
	"GET /sites":               func(_, object string) bool { return among(object, upkeep.KindSite, upkeep.KindAccount, "") },
	"GET /sites/{name}": func(path, object string) bool {
		return among(object, upkeep.KindAccount, "") || below(object, upkeep.KindSite, path)
	},
	"GET /jobs":      func(_, object string) bool { return among(object, "job") },
	"GET /jobs/{id}": func(path, object string) bool { return below(object, "job", path) },
}

// aboutServers is for pages of what is on servers.
func aboutServers(_, object string) bool {
	return !among(object, upkeep.KindPool, upkeep.KindZone, "job")
}

// among reports whether an object is of one of some kinds; "" is upkeep itself.
func among(object string, kinds ...string) bool {
	kind, _, named := strings.Cut(object, "/")
	if !named {
		kind = ""
	}
	return slices.Contains(kinds, kind)
}

// below reports whether an object is the one of a page, such as pool/web of
// /pools/web, or a part of it.
func below(object, kind, path string) bool {
	rest, is := strings.CutPrefix(object, kind+"/"+path[strings.LastIndexByte(path, '/')+1:])
	return is && (rest == "" || rest[0] == '/')
}

// shown are the names of what a page shows beside what its path names, by kind, as it
// was made. Its handler says so; of a kind that it says nothing of any may be shown.
type shown map[string][]string

type shownKey struct{}

// shows says, of a page that is made because somebody has it open, that of a kind it
// shows these and no others.
func shows(ctx context.Context, kind string, names []string) {
	if into, is := ctx.Value(shownKey{}).(shown); is {
		into[kind] = names
	}
}

// concerned reports whether what happened may change a page.
func (p *openPage) concerned(e upkeep.Event) bool {
	if !concerns[p.pattern](p.path, e.Object) {
		return false
	}
	kind, name, named := strings.Cut(e.Object, "/")
	name, _, _ = strings.Cut(name, "/")
	names, told := p.shown[kind]
	switch own := p.key.view.Account; {
	case own != "" && named && kind == upkeep.KindAccount:
		return name == own
	case own != "" && kind == upkeep.KindSite:
		// Whose the site is, no event says. All that comes of a site but its
		// document comes with a job, and that has an account.
		return e.Kind == upkeep.EventDeclared
	case told && named && !p.making && e.Kind != upkeep.EventDeclared:
		return slices.Contains(names, name)
	}
	return true
}
