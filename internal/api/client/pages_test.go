package client_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
)

// A list is read to its end, wherever it is cut.
func TestListsAreReadToTheirEnd(t *testing.T) {
	var asked []string
	c := over(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RequestURI())
		after := r.URL.Query().Get("after")
		if after < "c" {
			w.Header().Set("Link", fmt.Sprintf(`<https://attacker.example%s?after=%c>; rel="next"`, r.URL.Path, max(after, "a")[0]+1))
		}
		fmt.Fprintf(w, `{"pools":[{"name":"%s+"}]}`, after)
	})
	pools, err := c.Pools(t.Context())
	if err != nil || len(pools) != 3 || pools[2].Name != "c+" || strings.Join(asked, " ") != "/api/v1/pools /api/v1/pools?after=b /api/v1/pools?after=c" {
		t.Errorf("%v, %v, asked for %q", pools, err, asked)
	}
}

func TestListsEndWhereEnoughIs(t *testing.T) {
	id := 10
	c := over(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", fmt.Sprintf(`<%s?before=%d>; rel="next"`, r.URL.Path, id-1))
		fmt.Fprintf(w, `{"jobs":[{"id":%d},{"id":%d}]}`, id, id-1)
		id -= 2
	})
	if jobs, err := c.Jobs(t.Context(), wire.JobFilter{Limit: 3}); err != nil || len(jobs) != 3 || jobs[2].ID != 8 {
		t.Errorf("%v, %v", jobs, err)
	}
	if jobs, err := c.Jobs(t.Context(), wire.JobFilter{}); err != nil || len(jobs) != 2 {
		t.Errorf("one page: %v, %v", jobs, err)
	}
}

// A list that goes on where it is has no end.
func TestListsThatGoRound(t *testing.T) {
	c := over(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", `<`+r.URL.RequestURI()+`>; rel="next"`)
		io.WriteString(w, `{"entries":[]}`)
	})
	if _, err := c.Audit(t.Context(), client.AuditFilter{Limit: 10}); err == nil {
		t.Error("it is followed")
	}
}
