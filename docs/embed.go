// Package docs holds the OpenAPI document, which "make generate" writes from the source.
package docs

import _ "embed"

// OpenAPI is the document as JSON; OpenAPIYAML is the same as YAML.
var (
	//go:embed openapi.json
	OpenAPI []byte
	//go:embed openapi.yaml
	OpenAPIYAML []byte
)
