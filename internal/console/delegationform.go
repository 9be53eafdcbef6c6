package console

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/store"
)

func delegationGroups(c *Console, ctx context.Context, o upkeep.Object, isNew bool) ([]group, error) {
	d, _ := o.(upkeep.Delegation)
	accounts, err := c.o.Hosting.Bounds.Objects(ctx, upkeep.KindAccount, "")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, a := range accounts {
		names = append(names, a.Object.ObjectName())
	}
	var fields []field
	if isNew {
		fields = append(fields, field{Name: "name", Label: "Domain", Kind: "text", Value: d.Name, Hint: "Such as blog.example.test: it, and all names below it."})
	}
	return []group{{Title: "Delegation", Open: true, Fields: append(fields,
		field{Name: "account", Label: "Account that may use it", Kind: "choose", Options: owners(names, d.Account)},
		field{Name: "until", Label: "Until", Kind: "text", Value: d.Until, Hint: "A date such as 2027-01-31, at whose beginning in UTC it ends, or a time such as 2027-01-31T12:00:00Z. Left empty, it does not end."})}}, nil
}

func delegationOf(form url.Values, was upkeep.Object, isNew bool) (upkeep.Object, error) {
	d, _ := was.(upkeep.Delegation)
	if isNew {
		d.Name = strings.TrimSpace(form.Get("name"))
	}
	d.Account, d.Until = form.Get("account"), strings.TrimSpace(form.Get("until"))
	if day, err := time.Parse(time.DateOnly, d.Until); err == nil {
		d.Until = day.Format(time.RFC3339)
	}
	return d, nil
}

// endDelegation has a delegation end now, if it is still the one that was looked at.
func (c *Console) endDelegation(w http.ResponseWriter, r *http.Request) {
	d, is := c.declaredObject(w, r, objectKinds[upkeep.KindDelegation])
	if !is {
		return
	}
	generation, err := strconv.ParseInt(r.PostForm.Get("generation"), 10, 64)
	if err != nil || generation < 1 {
		c.fault(w, r, http.StatusBadRequest, "A generation is a number.")
		return
	}
	ends := d.Object.(upkeep.Delegation) // as the kind says
	ends.Until = c.o.Now().UTC().Format(time.RFC3339)
	if _, err := c.o.Hosting.Bounds.Apply(r.Context(), map[store.Ref]int64{store.RefOf(ends): generation}, []upkeep.Object{ends}, false); err != nil {
		c.refusedChange(w, r, err, "delegation")
		return
	}
	http.Redirect(w, r, "/declared?kind=delegation", http.StatusSeeOther)
}
