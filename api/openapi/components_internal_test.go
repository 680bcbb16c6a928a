package openapi

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What an error is given to say must be in the document, and under no name that a problem has for something else: that
// would be dropped.
func TestFurtherMembers_AreAllThatErrorsCarry(t *testing.T) {
	t.Parallel()
	given := regexp.MustCompile(`\.With\("([^"]+)"`)
	reserved := []string{"type", "title", "status", "detail", "instance", "code", "errors"}
	known := furtherMembers()
	found := 0
	for _, room := range []string{"../../internal", "../../api"} {
		err := filepath.WalkDir(room, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(text)) {
				if strings.Contains(line, "log.With(") || strings.Contains(line, "Log.With(") {
					continue
				}
				for _, m := range given.FindAllStringSubmatch(line, -1) {
					found++
					if _, ok := known[m[1]]; !ok || slices.Contains(reserved, m[1]) {
						t.Errorf("%s: %q is not in the document, or means something else there", path, m[1])
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < 40 {
		t.Errorf("only %d found: the test looks for them in another form than they have", found)
	}
}
