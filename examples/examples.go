// Package examples holds documents to start from; upkeep up uses the quick
// start when it is given none.
package examples

import _ "embed"

// Quickstart is quickstart.yaml.
//
//go:embed quickstart.yaml
var Quickstart []byte
