package app

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/importer"
	"github.com/accrue-billing/accrue/internal/secret"
)

// importCommand brings usage from a file into a running service, over its API.
type importCommand struct {
	File       string            `arg:"" type:"existingfile" help:"CSV or NDJSON, also compressed: .csv, .ndjson, .jsonl, and .gz of them."`
	URL        string            `name:"url" env:"ACCRUE_URL" default:"http://127.0.0.1:8080" help:"Where the API is reached."`
	Token      secret.Text       `required:"" env:"ACCRUE_TOKEN" help:"An API key or a token with the scope usage:write."`
	Account    string            `help:"The account, for a platform key or an operator; without it each row's subject says it."`
	Map        map[string]string `help:"A column that is a member of the event under another name, as COLUMN=MEMBER; members are id, source, meter, quantity, value, timestamp, subject and dimensions.NAME. May be repeated." placeholder:"COLUMN=MEMBER"`
	Set        map[string]string `help:"A member that every row has, as MEMBER=VALUE. May be repeated." placeholder:"MEMBER=VALUE"`
	TimeLayout string            `help:"How times are written, as Go writes a layout; without it RFC 3339, \"2006-01-02 15:04:05\" in UTC, or seconds since 1970."`
	Batch      int               `default:"1000" help:"Rows of a request."`
	Workers    int               `default:"4" help:"Requests in flight."`
	Checkpoint string            `help:"File that says how far the import has come; by default FILE.checkpoint. It is removed when the import is complete."`
	Rejects    string            `help:"File for the rows that were not taken, with the reason; by default FILE.rejects.csv."`
}

// Run imports the file. It ends with an error if a row was rejected, so that a script notices.
func (c importCommand) Run(in *invocation) (err error) {
	if c.Batch < 1 || c.Batch > 10_000 || c.Workers < 1 || c.Workers > 64 {
		return &UsageError{[]string{"batch: must be from 1 to 10000, and workers from 1 to 64"}}
	}
	if c.Checkpoint == "" {
		c.Checkpoint = c.File + ".checkpoint"
	}
	if c.Rejects == "" {
		c.Rejects = c.File + ".rejects.csv"
	}
	opt := importer.Options{
		Mapping: importer.Mapping{Columns: c.Map, Set: c.Set, Layout: c.TimeLayout},
		Batch:   c.Batch, Workers: c.Workers, Checkpoint: c.Checkpoint, Rejects: c.Rejects, Log: in.log,
	}
	if bar, ok := drawOn(in.stderr, c.File); ok {
		opt.Progress = bar
		defer func() { err = errors.Join(err, bar.Close()) }()
	}
	sender := &importer.HTTPSender{
		BaseURL: strings.TrimSuffix(c.URL, "/"), Token: c.Token.Reveal(), Account: c.Account, Log: in.log,
		Client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: c.Workers}},
	}
	counts, err := importer.Run(in.ctx, c.File, sender, opt)
	if _, printErr := fmt.Fprintf(in.stdout, "rows %d\naccepted %d\nduplicates %d\nconflicts %d\nrejected %d\n",
		counts.Rows, counts.Accepted, counts.Duplicates, counts.Conflicts, counts.Rejected); printErr != nil {
		return errors.Join(err, printErr)
	}
	if in.ctx.Err() != nil {
		return fmt.Errorf("interrupted; the same command goes on from row %d", counts.Rows+1)
	}
	switch {
	case errors.Is(err, importer.ErrOtherFile), errors.Is(err, importer.ErrRejectsGone):
		return fmt.Errorf("%s: %w", c.Checkpoint, err)
	case err != nil && counts.Rows == 0:
		return err
	case err != nil:
		return fmt.Errorf("import stopped; the same command goes on from row %d: %w", counts.Rows+1, err)
	}
	if err := os.Remove(c.Checkpoint); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if refused := counts.Conflicts + counts.Rejected; refused > 0 {
		return fmt.Errorf("%d rows were not taken; see %s", refused, c.Rejects)
	}
	return os.Remove(c.Rejects)
}

// drawOn returns a progress bar where somebody can see one.
func drawOn(w io.Writer, path string) (*importer.Bar, bool) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, false
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, false
	}
	return importer.NewBar(w, info.Size(), clock.System), true
}
