package e2e_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

// BenchmarkStart measures how long the service takes from its start until it is ready, and how large its program is.
func BenchmarkStart(b *testing.B) {
	program := binary(b, "")
	b.Run("program", func(b *testing.B) {
		info, err := os.Stat(program)
		if err != nil {
			b.Fatal(err)
		}
		const mb = 1e6
		size := float64(info.Size()) / mb
		fmt.Printf("%-46s %.1f MB (<= 60 MB)\n", "program", size)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(size, "MB")
		b.ReportMetric(60, "must-MB")
	})
	for _, s := range []struct {
		name string
		must time.Duration // zero: any
		// next returns a deployment whose start is to be measured.
		next func() *deployment
	}{
		{"schema in place", 150 * time.Millisecond, func() func() *deployment {
			d := newDeployment(b, program, "--database-url="+postgrestest.DSN(b))
			return func() *deployment { return d }
		}()},
		{"private database, schema in place", 0, func() func() *deployment {
			d := newDeployment(b, program)
			d.untilReady(b)
			return func() *deployment { return d }
		}()},
		{"private database, from nothing", 2500 * time.Millisecond, func() *deployment { return newDeployment(b, program) }},
	} {
		b.Run(strings.ReplaceAll(s.name, " ", "_"), func(b *testing.B) {
			var took [5]time.Duration
			for i := range took {
				took[i] = s.next().untilReady(b)
			}
			slices.Sort(took[:])
			median := took[len(took)/2]
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(median.Milliseconds()), "ms")
			limit := ""
			if s.must > 0 {
				b.ReportMetric(float64(s.must.Milliseconds()), "must-ms")
				limit = fmt.Sprintf(" (<= %s)", s.must)
			}
			fmt.Printf("%-46s %s%s\n", "ready, "+s.name, median.Round(time.Millisecond), limit)
		})
	}
}

// untilReady starts the service, ends it once it is ready, and returns how long that took it.
func (d *deployment) untilReady(b *testing.B) time.Duration {
	b.Helper()
	api := freeAddress(b)
	begun := time.Now()
	p, err := d.launch(nil, append([]string{"--addr=" + api, "--sandbox-addr=" + freeAddress(b)}, d.args...)...)
	if err != nil {
		b.Fatal(err)
	}
	p.api = "http://" + api
	defer p.end()
	p.awaitReady(b)
	return time.Since(begun)
}
