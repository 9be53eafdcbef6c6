package article

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// row is one row of a table, by column; NULL is absent.
type row map[string]string

// maxStatement bounds one statement of a dump, in bytes; mysqldump writes up to
// 16 MiB (net_buffer_length, max_allowed_packet).
const maxStatement = 64 << 20

// ReadDump reads the two tables of the article from a dump that mysqldump or
// mariadb-dump wrote. Everything else in it is passed over.
func ReadDump(r io.Reader) (Tables, error) {
	s := scanner{in: bufio.NewReaderSize(r, 1<<16), line: 1}
	columns := map[string][]string{}
	var tables Tables
	for {
		statement, line, err := s.statement()
		if err == io.EOF {
			break
		}
		if err != nil {
			return Tables{}, fmt.Errorf("reading the dump, line %d: %w", s.line, err)
		}
		if err := tables.take(statement, columns); err != nil {
			return Tables{}, fmt.Errorf("reading the dump, statement in line %d: %w", line, err)
		}
	}
	if len(columns) == 0 {
		return Tables{}, errors.New("reading the dump: it has neither a table virtual_hosts nor one named upkeep")
	}
	return tables, nil
}

// take reads one statement, if it is about a table of the article.
func (t *Tables) take(statement []lexeme, columns map[string][]string) error {
	p := parser{statement}
	switch {
	case p.words("create", "table"):
		p.words("if", "not", "exists")
		name := p.name()
		if name == tableHosts || name == tableJobs {
			columns[name] = p.columns()
		}
		return nil
	case p.words("insert"), p.words("replace"):
		p.words("ignore")
		p.words("into")
	default:
		return nil
	}
	name := p.name()
	if name != tableHosts && name != tableJobs {
		return nil
	}
	order := columns[name]
	if p.is("(") {
		var err error
		if order, err = p.list(); err != nil {
			return err
		}
	}
	if len(order) == 0 {
		return fmt.Errorf("the columns of %s are not known: its CREATE TABLE must come first", name)
	}
	columns[name] = order
	if !p.words("values") && !p.words("value") {
		return fmt.Errorf("VALUES is missing after INSERT INTO %s", name)
	}
	rows, err := p.rows(order)
	if err != nil {
		return fmt.Errorf("rows of %s: %w", name, err)
	}
	if name == tableHosts {
		t.hosts = append(t.hosts, rows...)
	} else {
		t.jobs = append(t.jobs, rows...)
	}
	return nil
}

// parser reads the words of one statement.
type parser struct{ rest []lexeme }

func (p *parser) is(symbol string) bool {
	return len(p.rest) > 0 && p.rest[0].kind == symbolic && p.rest[0].text == symbol
}

func (p *parser) skip(symbol string) bool {
	found := p.is(symbol)
	if found {
		p.rest = p.rest[1:]
	}
	return found
}

// words takes these words if they come next.
func (p *parser) words(words ...string) bool {
	if len(p.rest) < len(words) {
		return false
	}
	for i, word := range words {
		if p.rest[i].kind != bare || !strings.EqualFold(p.rest[i].text, word) {
			return false
		}
	}
	p.rest = p.rest[len(words):]
	return true
}

// name takes the name of a table, without that of its database.
func (p *parser) name() string {
	name := ""
	for len(p.rest) > 0 && (p.rest[0].kind == bare || p.rest[0].kind == named) {
		name = p.rest[0].text
		p.rest = p.rest[1:]
		if !p.skip(".") {
			break
		}
	}
	return name
}

// columns are those that a CREATE TABLE defines: the quoted names that begin a
// definition.
func (p *parser) columns() []string {
	var names []string
	depth, begins := 0, false
	for ; len(p.rest) > 0; p.rest = p.rest[1:] {
		word := p.rest[0]
		switch {
		case word.kind == symbolic && word.text == "(":
			depth++
			begins = depth == 1
			continue
		case word.kind == symbolic && word.text == ")":
			depth--
		case word.kind == symbolic && word.text == "," && depth == 1:
			begins = true
			continue
		case begins && word.kind == named:
			names = append(names, word.text)
		}
		begins = false
	}
	return names
}

// list is the column list of an INSERT.
func (p *parser) list() ([]string, error) {
	var names []string
	for p.rest = p.rest[1:]; len(p.rest) > 0; {
		if p.rest[0].kind != bare && p.rest[0].kind != named {
			break
		}
		names = append(names, p.rest[0].text)
		p.rest = p.rest[1:]
		if p.skip(")") {
			return names, nil
		}
		if !p.skip(",") {
			break
		}
	}
	return nil, errors.New("a list of columns cannot be read")
}

func (p *parser) rows(order []string) ([]row, error) {
	var rows []row
	for {
		if !p.skip("(") {
			return nil, errors.New("a row must begin with a parenthesis")
		}
		values := row{}
		for i, column := range order {
			if i > 0 && !p.skip(",") {
				return nil, fmt.Errorf("a row has fewer values than the %d columns", len(order))
			}
			text, null, err := p.literal()
			if err != nil {
				return nil, fmt.Errorf("column %s: %w", column, err)
			}
			if !null {
				values[column] = text
			}
		}
		if !p.skip(")") {
			return nil, fmt.Errorf("a row has more values than the %d columns", len(order))
		}
		rows = append(rows, values)
		if !p.skip(",") {
			return rows, nil
		}
	}
}

// literal takes one value: a number, a string, or NULL.
func (p *parser) literal() (text string, null bool, err error) {
	p.words("_binary")
	sign := ""
	if p.skip("-") {
		sign = "-"
	}
	if len(p.rest) == 0 {
		return "", false, errors.New("the statement ends too early")
	}
	word := p.rest[0]
	p.rest = p.rest[1:]
	switch {
	case word.kind == quoted && sign == "":
		return word.text, false, nil
	case word.kind == bare && strings.EqualFold(word.text, "null") && sign == "":
		return "", true, nil
	case word.kind == bare && word.text[0] >= '0' && word.text[0] <= '9':
		return sign + word.text, false, nil
	}
	return "", false, fmt.Errorf("%q is not a plain value", word.text)
}
