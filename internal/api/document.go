package api

import _ "embed"

// document describes the API: its routes, what they take and what they answer. It
// is made of the table of the routes, the types and the comments in their sources
// by a test, which fails where it has become untrue, and writes it anew by
//
//	go test ./internal/api -run TestDocument -update
//
//go:embed openapi.json
var document []byte

// Document is the description of the API in OpenAPI 3.1. Nobody changes it.
func Document() []byte { return document }
