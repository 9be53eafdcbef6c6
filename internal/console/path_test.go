package console

import "testing"

// What is told of leads to its page, and customers are led to none of staff's.
func TestPathOf(t *testing.T) {
	for object, want := range map[string][2]string{
		"site/example.test":           {"/sites/example.test", "/sites/example.test"},
		"pool/web":                    {"/pools/web", "/pools/web"},
		"pool/web/192.0.2.1":          {"/pools/web#m-192-0-2-1", "/pools/web#m-192-0-2-1"},
		"pool/we b/2001:db8::1":       {"/pools/we%20b#m-2001-db8--1", "/pools/we%20b#m-2001-db8--1"},
		"pool":                        {"", ""},
		"zone/example.test":           {"/zones/example.test", ""},
		"server/web1":                 {"/servers/web1", ""},
		"job/17":                      {"/jobs/17", ""},
		"receiver/oncall":             {"/receivers/oncall/edit", ""},
		"delegation/blog.example.com": {"/delegations/blog.example.com/edit", ""},
		"account/acme":                {"/declared/account/acme", ""},
		"user/ada":                    {"/users", ""},
		"server/../x?y#z":             {"/servers/..%2Fx%3Fy%23z", ""},
		"database":                    {"", ""},
	} {
		for i, staff := range []bool{true, false} {
			if got := pathOf(object, staff); got != want[i] {
				t.Errorf("pathOf(%q, %t) = %q, want %q", object, staff, got, want[i])
			}
		}
	}
}
