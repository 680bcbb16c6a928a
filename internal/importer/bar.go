package importer

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"
)

// Bar draws progress with rate and time left, for a person who looks on.
type Bar struct {
	bar  *progressbar.ProgressBar
	read atomic.Int64
}

var _ Progress = (*Bar)(nil)

// NewBar draws on w, which is a terminal, the reading of a file of so many bytes.
func NewBar(w io.Writer, size int64) *Bar {
	return &Bar{bar: progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(w), progressbar.OptionShowBytes(true), progressbar.OptionShowCount(),
		progressbar.OptionSetPredictTime(true), progressbar.OptionFullWidth(), progressbar.OptionSetDescription("importing"),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionOnCompletion(func() { _, _ = fmt.Fprintln(w) }),
	)}
}

// Read implements Progress.
func (b *Bar) Read(bytes int64) { b.read.Store(bytes) }

// Done implements Progress. It moves the bar only as far as rows are settled.
func (b *Bar) Done(c Counts) {
	b.bar.Describe(fmt.Sprintf("%d rows, %d rejected", c.Rows, c.Rejected+c.Conflicts))
	_ = b.bar.Set64(b.read.Load())
}

// Close ends the drawing.
func (b *Bar) Close() error { return b.bar.Finish() }
