package agent

import "context"

// serverPurge takes away what upkeep made for the web server here, once no site
// is left. Homes and logs are their owners', and stay.
func serverPurge(ctx context.Context, r *Root, j job) (any, error) {
	web, err := r.web()
	if err != nil {
		return nil, err
	}
	j.step(20, "taking upkeep's files and its line out of the web server's configuration")
	return nil, web.Applier.Purge(ctx)
}
