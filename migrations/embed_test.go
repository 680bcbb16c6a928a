package migrations_test

import (
	"fmt"
	"io/fs"
	"testing"

	"github.com/accrue-billing/accrue/migrations"
)

// Two branches that each take the next number would both be right alone; no database could be set up from the two together.
func TestEveryNumberIsTakenOnce(t *testing.T) {
	t.Parallel()
	files, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for i, file := range files {
		if want := fmt.Sprintf("%05d_", i+1); file[:len(want)] != want {
			t.Errorf("%s stands where %s… is expected", file, want)
		}
	}
}
