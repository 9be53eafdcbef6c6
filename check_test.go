package upkeep

import (
	"strings"
	"testing"
)

// What a check sends to a member is bounded, field by field.
func TestCheckTextIsBounded(t *testing.T) {
	valid := func(change func(*Check)) []FieldError {
		c := Check{Type: CheckHTTP, Method: "GET", Path: "/", Host: "www.example.test", Body: "ok", Header: map[string]string{"X-Test": "value"}}
		change(&c)
		r := &rules{}
		c.validate(r, "check")
		return r.fields
	}
	if fields := valid(func(*Check) {}); len(fields) != 0 {
		t.Fatal(fields)
	}
	long := strings.Repeat("a", 5000)
	for field, change := range map[string]func(*Check){
		"check.method":         func(c *Check) { c.Method = long },
		"check.path":           func(c *Check) { c.Path = "/" + long },
		"check.host":           func(c *Check) { c.Host = long },
		"check.body":           func(c *Check) { c.Body = long },
		"check.header.X-Test":  func(c *Check) { c.Header = map[string]string{"X-Test": long} },
		"check.header." + long: func(c *Check) { c.Header = map[string]string{long: "value"} },
	} {
		if fields := valid(change); len(fields) != 1 || fields[0].Field != field {
			t.Errorf("%.40s: %.200v", field, fields)
		}
	}
}
