package importer

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/accrue-billing/accrue/internal/clock"
)

// Bar draws progress with rate and time left, for a person who looks on.
type Bar struct {
	bar   *progressbar.ProgressBar
	out   io.Writer
	clock clock.Clock
	read  atomic.Int64
	begin time.Time // of this run: what an earlier one did says nothing of the rate
	first int64     // rows that were settled then
}

var _ Progress = (*Bar)(nil)

// NewBar draws on w, which is a terminal, the reading of a file of so many bytes.
func NewBar(w io.Writer, size int64, clk clock.Clock) *Bar {
	return &Bar{out: w, clock: clk, bar: progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(w), progressbar.OptionShowBytes(true), progressbar.OptionShowCount(),
		progressbar.OptionSetPredictTime(true), progressbar.OptionFullWidth(), progressbar.OptionSetDescription("importing"),
		progressbar.OptionThrottle(100*time.Millisecond),
	)}
}

// Read implements Progress.
func (b *Bar) Read(bytes int64) { b.read.Store(bytes) }

// Done implements Progress. It moves the bar only as far as rows are settled.
func (b *Bar) Done(c Counts) {
	now := b.clock()
	if b.begin.IsZero() {
		b.begin, b.first = now, c.Rows
	}
	rate := int64(0)
	if passed := now.Sub(b.begin); passed > 0 {
		rate = (c.Rows - b.first) * int64(time.Second) / int64(passed)
	}
	b.bar.Describe(fmt.Sprintf("%d rows, %d not taken, %d rows/s", c.Rows, c.Rejected+c.Conflicts, rate))
	_ = b.bar.Set64(b.read.Load())
}

// Close ends the drawing where it stands.
func (b *Bar) Close() error {
	_, err := fmt.Fprintln(b.out)
	return errors.Join(b.bar.Exit(), err)
}
