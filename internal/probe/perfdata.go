package probe

import (
	"strconv"
	"strings"
)

// maxPerf bounds the performance data that is kept of one probe, in bytes.
const maxPerf = 1 << 10

// splitOutput takes a plugin's output apart: the first line's text for people,
// and the performance data of all lines that follow a bar.
//
//	TEXT | PERFDATA
//	LONG TEXT
//	LONG TEXT | PERFDATA
//	PERFDATA
func splitOutput(output string) (text, perf string) {
	first, rest, _ := strings.Cut(output, "\n")
	text, firstPerf, _ := strings.Cut(first, "|")
	_, restPerf, _ := strings.Cut(rest, "|")
	return clean(text), cleanPerf(firstPerf + " " + restPerf)
}

// cleanPerf keeps the well-formed items of performance data, in the notation of
// the guidelines: 'label'=value[UOM];[warn];[crit];[min];[max], parted by blanks.
func cleanPerf(s string) string {
	var b strings.Builder
	for {
		var item string
		if item, s = nextPerf(s); item == "" {
			return b.String()
		}
		if !validPerf(item) {
			continue
		}
		if b.Len()+1+len(item) > maxPerf {
			return b.String()
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(item)
	}
}

// nextPerf cuts the next item off; blanks within quotes do not end it.
func nextPerf(s string) (item, rest string) {
	s = strings.TrimLeft(s, " \t\r\n")
	quoted := false
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\'':
			quoted = !quoted
		case !quoted && (c == ' ' || c == '\t' || c == '\r' || c == '\n'):
			return s[:i], s[i:]
		}
	}
	return s, ""
}

// validPerf reports whether an item is well-formed: a label, quoted if need be,
// a number or U (not known) with its unit, and up to four limits.
func validPerf(item string) bool {
	if clean(item) != item {
		return false // control characters, or longer than anyone means
	}
	at := strings.LastIndexByte(item, '=')
	if at < 1 {
		return false
	}
	label, value := item[:at], item[at+1:]
	if label[0] == '\'' {
		label = strings.ReplaceAll(strings.TrimPrefix(strings.TrimSuffix(label, "'"), "'"), "''", "")
		if !strings.HasSuffix(item[:at], "'") {
			return false
		}
	}
	if label == "" || strings.ContainsAny(label, "'=") {
		return false
	}
	fields := strings.Split(value, ";")
	if len(fields) > 5 {
		return false
	}
	if number := strings.TrimRight(fields[0], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ%"); fields[0] != "U" && !isNumber(number) {
		return false
	}
	for _, limit := range fields[1:] {
		if strings.Trim(limit, "0123456789.:~@-+eE") != "" {
			return false
		}
	}
	return true
}

func isNumber(s string) bool {
	if strings.Trim(s, "0123456789.-+") != "" {
		return false
	}
	_, err := strconv.ParseFloat(s, 64)
	return err == nil
}
