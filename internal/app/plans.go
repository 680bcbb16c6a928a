package app

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

type plansCommand struct {
	Validate plansValidate `cmd:"" help:"Name every fault of a catalogue file. Needs no database."`
	Draw     plansDraw     `cmd:"" help:"Draw what each charge of a catalogue file costs as usage grows. Needs no database."`
	Diff     plansDiff     `cmd:"" help:"Show what a catalogue file would change, on which accounts, and what they would pay. Changes nothing."`
	Apply    plansApply    `cmd:"" help:"Put a catalogue file on sale; accounts stay on the versions that they bought."`
	Migrate  plansMigrate  `cmd:"" help:"Show who would pay more on a version of their plan; with --yes, move them to it."`
	Cancel   plansCancel   `cmd:"" help:"End a migration that runs: who has been moved stays moved, nobody else is."`
}

// plansCancel ends a migration.
type plansCancel struct {
	Plan      string `arg:"" help:"The plan's code."`
	Migration string `arg:"" help:"The migration, as migrate and the API name it: pmg_…"`
	Reason    string `help:"For the audit log."`
}

// plansMigrate moves accounts between versions of a plan.
type plansMigrate struct {
	Plan   string `arg:"" help:"The plan's code."`
	To     int    `required:"" help:"The version."`
	When   string `default:"period_end" enum:"period_end,now" help:"From each account's next period, or for all of its running one."`
	Reason string `help:"For the audit log."`
	Show   int    `default:"20" help:"How many accounts to list."`
	Yes    bool   `help:"Do it."`
}

// catalogueFile is the argument of each.
type catalogueFile struct {
	File string `arg:"" type:"existingfile" help:"YAML or JSON, in the form of internal/plan/catalogue.yaml."`
}

type (
	plansValidate struct{ catalogueFile }
	plansDraw     struct{ catalogueFile }
	plansDiff     struct{ catalogueFile }
	plansApply    struct {
		catalogueFile
		DryRun bool `help:"Change nothing, as diff does."`
	}
)

// read parses the file; each of its faults is one line that names the entry and where it stands.
func (f catalogueFile) read() (plan.Catalogue, error) {
	text, err := os.ReadFile(f.File)
	if err != nil {
		return plan.Catalogue{}, err
	}
	c, err := plan.ParseCatalogue(text)
	if e, ok := errors.AsType[*errs.Error](err); ok && len(e.Fields) > 0 {
		faults := make([]string, 0, len(e.Fields))
		for _, field := range e.Fields {
			faults = append(faults, fmt.Sprintf("%s:%d: %s: %s", f.File, plan.Line(text, field.Pointer), field.Pointer, field.Detail))
		}
		return c, &UsageError{faults}
	}
	if err != nil {
		return c, fmt.Errorf("%s: %w", f.File, err)
	}
	return c, nil
}

// Run reads the file and says that it is good.
func (v plansValidate) Run(in *invocation) error {
	c, err := v.read()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(in.stdout, "%s is good: %d meters, %d plans\n", v.File, len(c.Meters), len(c.Offers))
	return err
}

// Run draws the curve of each price.
func (d plansDraw) Run(in *invocation) error {
	c, err := d.read()
	if err != nil {
		return err
	}
	for _, o := range c.Offers {
		for _, charge := range o.Version.Charges {
			for _, p := range charge.Prices {
				curve, err := pricing.Curve(charge, p.Currency)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", o.Plan.Code, charge.Code, err)
				}
				if err := drawCurve(in.stdout, o.Plan.Code, &charge, curve); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// drawCurve draws what one quoted unit comes to, with a bar as long as it is dear.
func drawCurve(w io.Writer, of plan.Code, c *plan.Charge, curve []pricing.Point) error {
	const width = 40
	unit := cmp.Or(c.Per.Unit, c.Unit)
	each := make([]money.Decimal, len(curve))
	var most money.Decimal
	for i, p := range curve {
		each[i] = p.Cost.Decimal().Quo(p.Units)
		if each[i].Cmp(most) > 0 {
			most = each[i]
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintf(w, "%s: %s\n", of, c.Name)
	_, _ = fmt.Fprintf(t, "%s\tcosts\tper %s\t\n", "usage", unit)
	for i, p := range curve {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", money.DecimalFromInt(p.Units).Grouped(), p.Cost.Currency.Display(p.Cost.Decimal()),
			p.Cost.Currency.Display(each[i]), bar(each[i], most, width))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}

// bar returns a bar of v's share of most, of so many characters at most and two spaces before it.
func bar(v, most money.Decimal, width int64) string {
	if v.Sign() <= 0 {
		return ""
	}
	share := new(big.Rat).Quo(v.Rat(), most.Rat())
	share.Mul(share, big.NewRat(8*width, 1))
	eighths := new(big.Int).Quo(share.Num(), share.Denom()).Int64()
	b := "  " + strings.Repeat("█", int(eighths/8))
	if rest := eighths % 8; rest > 0 {
		b += string(rune('█' + 8 - rest)) // from seven eighths to one they follow the whole block
	}
	return b
}

// Run prints what would change.
func (d plansDiff) Run(in *invocation) error {
	c, err := d.read()
	if err != nil {
		return err
	}
	return in.publish(c, true)
}

// Run publishes unless it is to change nothing, and prints what changes.
func (a plansApply) Run(in *invocation) error {
	c, err := a.read()
	if err != nil {
		return err
	}
	return in.publish(c, a.DryRun)
}

func (in *invocation) publish(c plan.Catalogue, dry bool) error {
	return in.core(func(core *billing.Core) error {
		p := billing.Publisher{Core: core}
		effects, err := p.Preview(in.ctx, c)
		if err != nil {
			return err
		}
		meters, err := core.DB.Plans().Meters(in.ctx)
		if err != nil {
			return err
		}
		if !dry {
			if _, err := p.Publish(in.ctx, c); err != nil {
				return err
			}
		}
		return printEffects(in.stdout, plan.DiffMeters(meters, c.Meters), effects)
	})
}

// Run compares, and moves the accounts if it is told to.
func (m plansMigrate) Run(in *invocation) error {
	if m.Show < 0 {
		return &UsageError{[]string{"show: must not be negative"}}
	}
	return in.core(func(core *billing.Core) error {
		migrator := billing.Migrator{Core: core}
		r, err := migrator.Preview(in.ctx, plan.Code(m.Plan), m.To, m.Show)
		if err != nil {
			return err
		}
		printRepricing(in.stdout, r)
		if !m.Yes {
			_, err := fmt.Fprintln(in.stdout, "nothing was changed; --yes moves them")
			return err
		}
		begun, err := migrator.Begin(in.ctx, billing.Asked{Actor: "operator:cli"}, billing.MigrationInput{
			Plan: plan.Code(m.Plan), To: m.To, When: subscription.When(m.When), Reason: m.Reason,
		}, nil)
		if err != nil {
			return err
		}
		n, err := migrator.Run(in.ctx, begun.Record.ID, 0)
		_, _ = fmt.Fprintf(in.stdout, "%s: %d accounts dealt with\n", begun.Record.ID, n)
		return err
	})
}

// Run cancels.
func (p plansCancel) Run(in *invocation) error {
	mid, err := id.Parse[subscription.Migration](p.Migration)
	if err != nil {
		return subscription.ErrMigrationNotFound.Because(err)
	}
	return in.core(func(core *billing.Core) error {
		got, err := billing.Migrator{Core: core}.Cancel(in.ctx, billing.Asked{Actor: "operator:cli"}, plan.Code(p.Plan), mid, p.Reason, nil)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(in.stdout, "%s is %s\n", mid, got.Record.Status)
		return err
	})
}

func printRepricing(w io.Writer, r billing.Repricing) {
	_, _ = fmt.Fprintf(w, "%d of %d accounts compared by their last months: %d would have paid more, %d less, %d the same\n",
		r.Compared, r.Accounts, r.More, r.Less, r.Same)
	for _, t := range r.Totals {
		_, _ = fmt.Fprintf(w, "  %s → %s\n", t.Before, t.After)
	}
	for _, row := range r.Rows {
		if row.Stays != "" {
			_, _ = fmt.Fprintf(w, "  %s stays on version %d: %s\n", row.Account.ExternalID, row.From, row.Stays)
			continue
		}
		_, _ = fmt.Fprintf(w, "  %s: %s → %s (%s)\n", row.Account.ExternalID, row.Before, row.After, row.Difference)
	}
}

func (in *invocation) core(fn func(core *billing.Core) error) error {
	return in.withDatabase(func(d *database) error {
		db, err := postgres.Open(in.ctx, postgres.Config{URL: d.url.Reveal(), MaxConns: 4})
		if err != nil {
			return err
		}
		defer db.Close()
		shared, err := clock.Follow(in.ctx, db.Time)
		if err != nil {
			return err
		}
		return fn(&billing.Core{DB: db, Clock: shared.Now, Policy: billing.DefaultPolicy(), Log: in.log})
	})
}

func printEffects(w io.Writer, meters []plan.Change, effects []billing.PlanEffect) error {
	changed := len(meters)
	for _, c := range meters {
		_, _ = fmt.Fprintf(w, "%s: %s → %s\n", c.Pointer, orNothing(c.Before), orNothing(c.After))
	}
	for _, e := range effects {
		if e.Before == e.After {
			continue
		}
		changed++
		if e.Before == 0 {
			_, _ = fmt.Fprintf(w, "%s: is new, as version %d\n", e.Plan, e.After)
		} else {
			_, _ = fmt.Fprintf(w, "%s: version %d becomes %d\n", e.Plan, e.Before, e.After)
		}
		for _, c := range e.Changes {
			_, _ = fmt.Fprintf(w, "  %s: %s → %s\n", c.Pointer, orNothing(c.Before), orNothing(c.After))
		}
		for _, version := range slices.Sorted(maps.Keys(e.Accounts)) {
			_, _ = fmt.Fprintf(w, "  %d accounts stay on version %d\n", e.Accounts[version], version)
		}
		if e.IfMigrated != nil {
			_, _ = fmt.Fprint(w, "  if they were moved: ")
			printRepricing(w, *e.IfMigrated)
		}
	}
	if changed == 0 {
		_, err := fmt.Fprintln(w, "nothing changes")
		return err
	}
	return nil
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}
