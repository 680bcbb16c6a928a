package api

import (
	"encoding/json"
	"errors"

	"github.com/labstack/echo/v4"
)

// serializer writes answers. Bodies are never read through it: echo's binding takes fields from the
// address and drops what it does not know, so handlers use strictjson instead.
type serializer struct{}

// Serialize writes v without HTML escapes and without indentation.
func (serializer) Serialize(c echo.Context, v any, _ string) error {
	enc := json.NewEncoder(c.Response())
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// Deserialize refuses.
func (serializer) Deserialize(echo.Context, any) error {
	return errors.New("bodies are decoded by strictjson, not by echo's binding")
}
