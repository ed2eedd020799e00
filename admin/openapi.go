package admin

import _ "embed"

// openAPIDocument is made from the table of endpoints: go test ./admin -run OpenAPI -update.
//
//go:embed openapi.json
var openAPIDocument []byte

func (s *Server) openAPI(*call) (any, error) { return raw{"application/json", openAPIDocument}, nil }
