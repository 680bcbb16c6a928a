package demo

import (
	"context"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

// agreeContract is the salesperson's answer: a yearly contract with a monthly commitment, cheaper
// minutes and no limits.
func agreeContract(ctx context.Context, s *seeding, l *life) error {
	now := s.clock.Now()
	usd := func(minor int64) plan.Sums { return plan.Sums{money.New(minor, money.USD)} }
	perMinute := plan.Quote{Unit: "minute", Size: 60}
	_, err := billing.Contractor{Core: s.core}.Agree(ctx, billing.Asked{Account: l.Account, Actor: "operator:sales"}, plan.Contract{
		Reference: "MER-2026-001", Plan: plan.Enterprise, Start: now.AddDate(0, -1, 0), End: now.AddDate(1, 0, 0),
		Charges: []plan.Charge{
			{
				Code: "voice", Name: "Voice", Meter: "voice", Unit: "second", Aggregation: plan.Sum, Per: perMinute,
				Prices: []plan.Price{{Currency: money.USD, Model: plan.PerUnit, UnitPrice: money.MustDecimal("0.011")}},
			},
			{
				Code: "text", Name: "Text", Meter: "text", Unit: "word", Aggregation: plan.Sum,
				Prices: []plan.Price{{Currency: money.USD, Model: plan.PerUnit, UnitPrice: money.MustDecimal("0.00008")}},
			},
		},
		Unlimited:  []plan.MeterCode{"voice", "text", "realtime_assist", "concurrent_connections"},
		Commitment: &plan.Commitment{Steps: []plan.Step{{From: now.AddDate(0, -1, 0), Sums: usd(75_000)}}},
	}, nil)
	return err
}
