package importer_test

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/accrue-billing/accrue/internal/importer"
)

// Who looks on sees how far it is, at which rate, and how long it will take. What an earlier run settled says nothing of
// the rate of this one.
func TestBar_ShowsRateAndTimeLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		bar := importer.NewBar(&out, 1<<20, time.Now)
		bar.Done(importer.Counts{Rows: 5000}) // of the run before
		for i := range int64(4) {
			time.Sleep(time.Second)
			bar.Read((i + 1) << 17)
			bar.Done(importer.Counts{Rows: 5000 + 1000*(i+1), Rejected: i, Conflicts: 1})
		}
		if err := bar.Close(); err != nil {
			t.Fatal(err)
		}
		frames := strings.Split(out.String(), "\r")
		var last string
		for _, f := range frames {
			if strings.Contains(f, "rows") {
				last = strings.TrimSpace(f)
			}
		}
		for _, want := range []string{`^9000 rows, 4 not taken, 1000 rows/s `, ` (37|50)% `, ` \[4s:[45]s\]$`} { // it is drawn at most every 100 ms
			if !regexp.MustCompile(want).MatchString(last) {
				t.Errorf("it ends with %q, which does not show %q", last, want)
			}
		}
	})
}
