// Package migrations holds the schema as numbered, embedded SQL files.
//
// A file is NNNNN_name.sql with an Up and a Down part, in goose's notation. Files that have been
// released are never edited: what has to change gets a new number.
package migrations

import "embed"

// FS holds the migration files.
//
//go:embed *.sql
var FS embed.FS
