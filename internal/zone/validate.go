package zone

import "upkeep"

// ValidateRecords returns what is wrong with the data of a zone's static records.
func ValidateRecords(z upkeep.Zone) []upkeep.FieldError {
	_, problems := parseRecords(z.WithDefaults())
	return problems
}
