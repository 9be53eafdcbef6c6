package agent

import (
	"fmt"
	"path"

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
// has made; nil where none belongs there. A folder that comes back at a regeneration
// had pages, and looks as empty as it is. PHP has its own first page, which one of
// ours would hide.
func firstPage(j job, site upkeep.Site) func(*safefs.Dir) error {
	index := site.WithDefaults().Index[0]
	if j.Kind == upkeep.JobSiteSync || site.PHP != nil || path.Ext(index) != ".html" {
		return nil
	}
	return func(pages *safefs.Dir) error {
		return pages.AddFile(index, fmt.Appendf(nil, firstPageText, site.Name, index), 0o644)
	}
}
