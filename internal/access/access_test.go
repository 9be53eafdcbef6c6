package access

import (
	"errors"
	"testing"

	"upkeep"
)

var (
	stranger = Caller{Who: "192.0.2.1"}
	operator = Caller{Who: "user ada", Staff: true}
	reader   = Caller{Who: "user ada", Staff: true, ReadOnly: true}
	customer = Caller{Who: "user eve", Account: "acme"}
	auditor  = Caller{Who: "user eve", Account: "acme", ReadOnly: true}
	writer   = Caller{Who: "user ada (token 3)", User: "ada", Staff: true, Token: 3}
	keeper   = Caller{Who: "user ada (token 4)", User: "ada", Staff: true, Token: 4, WithUsers: true}
)

func TestRules(t *testing.T) {
	for _, tt := range []struct {
		rule    Rule
		private bool
		// what becomes of a stranger, an operator, a reader, a customer, an auditor; and
		// of tokens that may write, and see to users
		want [7]Outcome
	}{
		{Rule{For: Anybody}, true, [7]Outcome{}},
		{Rule{For: Anybody, Changes: true}, false, [7]Outcome{Allowed, Allowed, Refused, Allowed, Refused, Allowed, Allowed}},
		{Rule{For: Onlookers}, false, [7]Outcome{}},
		{Rule{For: Onlookers}, true, [7]Outcome{Unknown, Allowed, Allowed, Refused, Refused, Allowed, Allowed}},
		{Rule{For: Visitors}, false, [7]Outcome{}},
		{Rule{For: Visitors}, true, [7]Outcome{Unknown, Allowed, Allowed, Allowed, Allowed, Allowed, Allowed}},
		{Rule{For: Customers}, false, [7]Outcome{Unknown, Allowed, Allowed, Allowed, Allowed, Allowed, Allowed}},
		{Rule{For: Customers, Changes: true}, false, [7]Outcome{Unknown, Allowed, Refused, Allowed, Refused, Allowed, Allowed}},
		{Rule{For: Staff}, false, [7]Outcome{Unknown, Allowed, Allowed, Refused, Refused, Allowed, Allowed}},
		{usersChange, false, [7]Outcome{Unknown, Allowed, Refused, Refused, Refused, Refused, Allowed}},
		{Rule{For: Staff, Changes: true}, true, [7]Outcome{Unknown, Allowed, Refused, Refused, Refused, Allowed, Allowed}},
	} {
		for i, caller := range []Caller{stranger, operator, reader, customer, auditor, writer, keeper} {
			if got := tt.rule.Check(caller, tt.private); got != tt.want[i] {
				t.Errorf("%+v, private %v, %+v: %d, want %d", tt.rule, tt.private, caller, got, tt.want[i])
			}
		}
	}
}

// Nobody owns what belongs to nobody but the operator, whatever their account.
func TestOwns(t *testing.T) {
	for _, tt := range []struct {
		caller  Caller
		account string
		want    bool
	}{
		{customer, "acme", true}, {customer, "other", false}, {customer, "", false},
		{stranger, "", false}, {stranger, "acme", false}, {operator, "acme", true}, {operator, "", true},
	} {
		if got := tt.caller.Owns(tt.account); got != tt.want {
			t.Errorf("%+v owns what is %q's: %v", tt.caller, tt.account, got)
		}
	}
}

func TestSitesOfCustomers(t *testing.T) {
	own := upkeep.Site{Name: "a.test", Account: "acme"}
	with := func(change func(*upkeep.Site)) upkeep.Site {
		s := own
		change(&s)
		return s
	}
	suspended := with(func(s *upkeep.Site) { s.Suspended = true })
	others := with(func(s *upkeep.Site) { s.Account = "other" })
	shared := with(func(s *upkeep.Site) { s.Files = "files1" })
	on := func(servers ...string) upkeep.Site { return with(func(s *upkeep.Site) { s.Servers = servers }) }
	ptr := func(s upkeep.Site) *upkeep.Site { return &s }
	for name, tt := range map[string]struct {
		change Change
		wrong  string
	}{
		"a new one":                    {Change{nil, own}, ""},
		"a change":                     {Change{&own, with(func(s *upkeep.Site) { s.CGI = true })}, ""},
		"suspending":                   {Change{&own, suspended}, ""},
		"lifting a suspension":         {Change{&suspended, own}, "suspended"},
		"a change while suspended":     {Change{&suspended, with(func(s *upkeep.Site) { s.CGI, s.Suspended = true, true })}, ""},
		"for another account":          {Change{nil, others}, "account"},
		"giving it away":               {Change{&own, others}, "account"},
		"choosing where files are":     {Change{nil, shared}, "files"},
		"leaving where files are":      {Change{&shared, shared}, ""},
		"moving files away":            {Change{&shared, own}, "files"},
		"one that is another's by now": {Change{&others, own}, "name"},
		"a server":                     {Change{&own, on("web1")}, ""},
		"a server of staff's":          {Change{nil, on("web1", "inside")}, "servers[1]"},
		"moving to one of staff's":     {Change{ptr(on("web1")), on("inside")}, "servers[0]"},
		"staying on one of staff's":    {Change{ptr(on("inside")), on("inside", "web1")}, ""},
	} {
		broken := CheckSites(customer, []Change{tt.change}, []string{"inside"})
		if tt.wrong == "" && len(broken) > 0 || tt.wrong != "" && (len(broken) != 1 || broken[0].Field != tt.wrong) {
			t.Errorf("%s: %v, want a fault in %q", name, broken, tt.wrong)
		}
		if broken := CheckSites(operator, []Change{tt.change}, []string{"inside"}); len(broken) > 0 {
			t.Errorf("%s by staff: %v", name, broken)
		}
	}
}

// A token sees to the tokens of its own user; others are for one that may see to users.
func TestTokensOfTokens(t *testing.T) {
	for _, tt := range []struct {
		caller  Caller
		user    string
		allowed bool
	}{{writer, "ada", true}, {writer, "bob", false}, {keeper, "bob", true}, {operator, "bob", true}} {
		if err := CheckToken(tt.caller, tt.user); (err == nil) != tt.allowed || err != nil && !errors.Is(err, upkeep.ErrRefused) {
			t.Errorf("%s about a token of %s: %v", tt.caller.Who, tt.user, err)
		}
	}
}
