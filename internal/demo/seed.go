package demo

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

// The external ids of the demo's accounts, which its tokens name.
const (
	developerAccount  = "demo-developer"
	proAccount        = "demo-pro"
	enterpriseAccount = "demo-enterprise"
)

// Customer is one of the demo's accounts.
type Customer struct {
	ExternalID string
	Name       string
	Level      string
	Account    account.ID
	Events     int // of usage, that were reported for it
}

// Seeder lives the demo's customers through the operations, on a clock of its own.
type Seeder struct {
	Core    *billing.Core // as the service has it; the clock is replaced
	Journal metering.Journal
	Meters  metering.Catalogue
	Seed    uint64
	// Progress, if set, is told after each day that was lived, of how many there are in all.
	Progress func(done, total int)
}

// life is one customer's script.
type life struct {
	Customer
	profile  Profile
	start    time.Time
	voiceCap int64                                                // seconds after which the customer stops calling; 0: never
	on       map[int]func(context.Context, *seeding, *life) error // by day
}

// seeding is a run of the Seeder.
type seeding struct {
	core   *billing.Core
	clock  *Clock
	ingest *metering.Ingester
	seed   uint64
}

// ErrSeeded says that the accounts are there already; they are left as they are.
var ErrSeeded = errors.New("the demo's accounts exist already")

// unlived is added to a customer's name until its weeks are lived: a run that was ended in between is told by it.
const unlived = " (demo, not lived to its end)"

// Run creates the three accounts and lives their weeks up to now. Where they exist already it returns
// ErrSeeded and them. What a run that was interrupted has left stays as it is, and three others begin,
// whose external ids are counted on.
func (s Seeder) Run(ctx context.Context, now time.Time) (customers []Customer, err error) {
	defer errs.Wrap(&err, "seed the demo")
	var lives []life
	for n := 1; ; n++ {
		lives = script(now)
		for i := range lives {
			if n > 1 {
				lives[i].ExternalID += "-" + strconv.Itoa(n)
			}
		}
		found, lived, err := s.find(ctx, lives)
		if err != nil {
			return nil, err
		}
		if lived {
			return found, ErrSeeded
		}
		if len(found) == 0 {
			break
		}
	}
	clk := NewClock(now)
	core := &billing.Core{DB: s.Core.DB, Gateway: s.Core.Gateway, Clock: clk.Now, Policy: s.Core.Policy, Log: s.Core.Log}
	run := &seeding{core: core, clock: clk, seed: s.Seed}
	run.ingest = metering.NewIngester(s.Journal, s.Meters, clk.Now, core.Log, metering.Options{})
	ictx, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- run.ingest.Run(ictx) }()
	defer func() { stop(); err = errors.Join(err, <-ended) }()

	total, done := 0, 0
	for i := range lives {
		total += lives[i].days(now)
	}
	for i := range lives {
		l := &lives[i]
		tick := func() {
			if done++; s.Progress != nil {
				s.Progress(done, total)
			}
		}
		if err := run.live(ctx, l, now, tick); err != nil {
			return nil, fmt.Errorf("%s: %w", l.ExternalID, err)
		}
		customers = append(customers, l.Customer)
	}
	return customers, nil
}

// find returns those of the demo's accounts that exist, and whether all do and have lived to their end.
func (s Seeder) find(ctx context.Context, lives []life) (out []Customer, lived bool, err error) {
	lived = true
	for _, l := range lives {
		acct, err := s.Core.DB.Accounts().ByExternalID(ctx, l.ExternalID)
		if errors.Is(err, account.ErrNotFound) {
			lived = false
			continue
		}
		if err != nil {
			return nil, false, err
		}
		lived = lived && !strings.HasSuffix(acct.Name, unlived)
		l.Account = acct.ID
		out = append(out, l.Customer)
	}
	return out, lived, nil
}

func (l *life) days(now time.Time) int { return int(now.Sub(l.start)/(24*time.Hour)) + 1 }

// script is who they are. The Pro account began long enough ago to have two closed cycles by now.
func script(now time.Time) []life {
	berlin, london, newYork := zone("Europe/Berlin"), zone("Europe/London"), zone("America/New_York")
	morning := func(t time.Time) time.Time { return time.Date(t.Year(), t.Month(), t.Day(), 8, 30, 0, 0, time.UTC) }
	return []life{
		{
			Customer: Customer{ExternalID: developerAccount, Name: "Lumen Labs", Level: "Developer"},
			profile:  Profile{Calls: 18, Messages: 24, Projects: []string{"prototype"}, Zone: berlin},
			start:    morning(now.AddDate(0, 0, -24)), voiceCap: 55_800, // of 60,000 free seconds a period
		},
		{
			Customer: Customer{ExternalID: proAccount, Name: "Northwind Support", Level: "Pro"},
			profile:  Profile{Calls: 190, Messages: 420, Projects: []string{"helpdesk", "sales", "onboarding"}, Zone: london},
			start:    morning(now.AddDate(0, -2, -9)),
			on: map[int]func(context.Context, *seeding, *life) error{
				1:  upgradeToPro,
				3:  topUp(20_000),
				36: topUp(15_000),
				68: topUp(25_000),
			},
		},
		{
			Customer: Customer{ExternalID: enterpriseAccount, Name: "Meridian Contact Centers", Level: "Enterprise"},
			profile:  Profile{Calls: 620, Messages: 900, Projects: []string{"emea", "americas", "apac"}, Zone: newYork},
			start:    morning(now.AddDate(0, -1, -12)),
			on: map[int]func(context.Context, *seeding, *life) error{
				0: upgradeToPro,
				1: contactSales,
				4: agreeContract,
			},
		},
	}
}

func zone(name string) *time.Location {
	z, err := time.LoadLocation(name)
	if err != nil {
		panic("demo: " + err.Error()) // the binary carries the zone files
	}
	return z
}

// live lives a customer's days: what is planned for the day, its usage, and at night what is due.
func (s *seeding) live(ctx context.Context, l *life, now time.Time, tick func()) error {
	s.clock.Set(l.start)
	acct, err := billing.Opener{Core: s.core}.Open(ctx, billing.NewAccount{
		ExternalID: l.ExternalID, Name: l.Name + unlived, TimeZone: l.profile.Zone.String(),
	})
	if err != nil {
		return err
	}
	l.Account = acct.ID
	voice := money.Decimal{}
	for d := range l.days(now) {
		day := l.start.AddDate(0, 0, d)
		s.clock.Set(day)
		if act := l.on[d]; act != nil {
			if err := act(ctx, s, l); err != nil {
				return fmt.Errorf("day %d: %w", d, err)
			}
		}
		events := l.profile.Day(acct.ID, day, s.seed)
		kept := events[:0]
		for _, e := range events {
			if e.OccurredAt.After(now) || e.OccurredAt.Before(acct.CreatedAt) {
				continue
			}
			if e.Meter == "voice" && l.voiceCap > 0 {
				if voice.Add(e.Quantity).Cmp(money.DecimalFromInt(l.voiceCap)) > 0 {
					continue
				}
				voice = voice.Add(e.Quantity)
			}
			kept = append(kept, e)
		}
		night := day.Add(23 * time.Hour)
		if night.After(now) {
			night = now
		}
		s.clock.Set(night)
		if err := s.report(ctx, l, kept); err != nil {
			return err
		}
		if _, err := (billing.Sweeper{Core: s.core}).Sweep(ctx); err != nil {
			return err
		}
		tick()
	}
	return s.named(ctx, l)
}

// named gives a customer its name, once its weeks are lived.
func (s *seeding) named(ctx context.Context, l *life) error {
	keeper := billing.Keeper{Core: s.core}
	acct, err := keeper.View(ctx, l.Account)
	if err != nil {
		return err
	}
	_, err = keeper.Change(ctx, by(l), billing.AccountChange{Name: &l.Name, Version: acct.Version()})
	return err
}

func (s *seeding) report(ctx context.Context, l *life, events []metering.Event) error {
	if len(events) == 0 {
		return nil
	}
	results, err := s.ingest.Add(ctx, events)
	if err != nil {
		return err
	}
	for _, r := range results {
		if r.Status == metering.Accepted {
			l.Events++
		}
	}
	return nil
}

// addresses of the demo's customers are those of museums.
func profileOf(name string) account.Profile {
	return account.Profile{
		Name: name, Email: "billing@example.com",
		Address: account.Address{Line1: "Exhibition Road", City: "London", PostalCode: "SW7 2DD", Country: "GB"},
	}
}

func upgradeToPro(ctx context.Context, s *seeding, l *life) error {
	p := profileOf(l.Name)
	got, err := billing.Upgrader{Core: s.core}.Upgrade(ctx, by(l), billing.UpgradeInput{
		Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.TokenVisa}, Profile: &p,
	}, nil)
	if err == nil && got.Record.Status != payment.Succeeded {
		err = fmt.Errorf("upgrade is %s", got.Record.Status)
	}
	return err
}

func topUp(minor int64) func(context.Context, *seeding, *life) error {
	return func(ctx context.Context, s *seeding, l *life) error {
		_, err := billing.Funder{Core: s.core}.TopUp(ctx, by(l), billing.TopUpInput{Amount: money.New(minor, money.USD)}, nil)
		return err
	}
}

func contactSales(ctx context.Context, s *seeding, l *life) error {
	_, err := billing.Inquirer{Core: s.core}.Inquire(ctx, by(l), billing.InquiryInput{
		Name: "Sam Rivera", Email: "sam@example.com", Company: l.Name, Message: "We expect two million minutes a year. What can you offer?",
	}, nil)
	return err
}

func by(l *life) billing.Asked { return billing.Asked{Account: l.Account, Actor: "user:demo"} }
