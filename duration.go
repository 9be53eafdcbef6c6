package upkeep

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Day and Year extend the units of [time.ParseDuration]. A year is 365 days.
const (
	Day  = 24 * time.Hour
	Year = 365 * Day
)

// Duration is a time.Duration written as text: "500ms", "1s", "5m", "30d".
type Duration time.Duration

// ParseDuration reads what time.ParseDuration reads and, as a single number
// with its unit, days ("30d") and years ("10y").
func ParseDuration(s string) (time.Duration, error) {
	for unit, length := range map[string]time.Duration{"d": Day, "y": Year} {
		number, found := strings.CutSuffix(s, unit)
		if !found {
			continue
		}
		n, err := strconv.ParseFloat(number, 64)
		if err != nil || strings.Trim(number, "0123456789.") != "" || n*float64(length) >= float64(1<<62) {
			return 0, fmt.Errorf("%q is not a duration such as 500ms, 1s, 5m, 12h, 30d or 10y", s)
		}
		return time.Duration(n * float64(length)), nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as 500ms, 1s, 5m, 12h, 30d or 10y", s)
	}
	return d, nil
}

func (d Duration) String() string {
	s := time.Duration(d).String()
	// "1m0s" and "1h0m0s" read worse than what a person would have typed.
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := ParseDuration(string(text))
	if err != nil {
		return err
	}
	*d = Duration(v)
	return nil
}

// Rate is a number of events that is accepted in a span of time, written
// "1/10y" or "2/30d".
type Rate struct {
	Count int
	Per   time.Duration
}

// Every is the mean time between events, zero for the zero Rate.
func (r Rate) Every() time.Duration {
	if r.Count == 0 {
		return 0
	}
	return r.Per / time.Duration(r.Count)
}

// IsZero reports whether the rate was left out.
func (r Rate) IsZero() bool { return r == Rate{} }

func (r Rate) String() string {
	if r.IsZero() {
		return ""
	}
	for unit, length := range map[string]time.Duration{"y": Year, "d": Day} {
		if r.Per%length == 0 && (unit == "y" || r.Per%Year != 0) {
			return fmt.Sprintf("%d/%d%s", r.Count, r.Per/length, unit)
		}
	}
	return fmt.Sprintf("%d/%s", r.Count, Duration(r.Per))
}

// MarshalText implements encoding.TextMarshaler.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Rate) UnmarshalText(text []byte) error {
	count, per, found := strings.Cut(string(text), "/")
	n, err := strconv.Atoi(count)
	if !found || err != nil || n < 1 {
		return fmt.Errorf("%q is not a rate such as 1/10y or 2/30d", text)
	}
	d, err := ParseDuration(per)
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is not a rate such as 1/10y or 2/30d", text)
	}
	*r = Rate{Count: n, Per: d}
	return nil
}
