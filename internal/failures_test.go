package internal_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// docs/failures.md says which test shows what: each of them must be there, and every case be listed once.
func TestFailures_AreShownByTestsThatThereAre(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/failures.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{} // the file of each
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, found := range declared.FindAllSubmatch(source, -1) {
			tests[string(found[1])] += string(source)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, named := range regexp.MustCompile("`((?:Test|Fuzz)\\w+)(?:/(\\w+))?`").FindAllStringSubmatch(string(page), -1) {
		source, ok := tests[named[1]]
		if part := named[2]; !ok || part != "" && !strings.Contains(source, `t.Run("`+part+`"`) {
			t.Errorf("there is no %s", named[0])
		}
	}

	listed := map[int]int{}
	for _, row := range regexp.MustCompile(`(?m)^\| (\d+)(?:–(\d+))? \| [^|]+ \| [^|]+ \|`).FindAllStringSubmatch(string(page), -1) {
		first, _ := strconv.Atoi(row[1])
		last, err := strconv.Atoi(row[2])
		if err != nil {
			last = first
		}
		for n := first; n <= last; n++ {
			listed[n]++
		}
	}
	for n := 1; n <= 91; n++ {
		if listed[n] != 1 {
			t.Errorf("case %d is listed %d times", n, listed[n])
		}
	}
}
