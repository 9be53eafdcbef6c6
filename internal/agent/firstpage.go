package agent

import (
	"fmt"
	"path"
	"slices"

	"upkeep"
	"upkeep/internal/safefs"
)

// firstPageText is what a new site shows until its owner puts something there: who
// looks sees that the name leads to the right place. It tells nothing of the server.
const firstPageText = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="robots" content="noindex">
<title>%[1]s</title>
</head>
<body>
<h1>%[1]s is ready</h1>
<p>Its pages go where this one is, the file %[2]s. Replace it, or remove it.</p>
</body>
</html>
`

// firstPage puts a first page into the folder of a site's pages, which this very job
// has made, or the job of a sub-site before it, as begun says. A folder that comes back
// at a regeneration had pages, and looks as empty as it is. PHP has its own first page,
// which one of ours would hide.
func firstPage(j job, site upkeep.Site, begun []string) func(at string, made bool, dir *safefs.Dir) error {
	index, pages := site.WithDefaults().Index[0], path.Join("htdocs", site.WithDefaults().Root)
	none := j.Kind == upkeep.JobSiteSync || site.PHP != nil || path.Ext(index) != ".html"
	return func(at string, made bool, dir *safefs.Dir) error {
		if none || at != pages || !made && !slices.Contains(begun, at) {
			return nil
		}
		return dir.AddFile(index, fmt.Appendf(nil, firstPageText, site.Name, index), 0o644)
	}
}
