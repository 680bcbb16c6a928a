package plan_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/plan"
)

// shelf is a store in which one plan is on sale, and its versions, the latest first.
type shelf struct {
	plan.Store
	meters   []plan.Meter
	versions []plan.Version
	quicker  bool // another publisher comes first
}

func (s *shelf) Meters(context.Context) ([]plan.Meter, error) { return s.meters, nil }

func (s *shelf) Versions(context.Context, plan.Code) ([]plan.Version, error) { return s.versions, nil }

func (s *shelf) PutMeters(_ context.Context, m []plan.Meter) error { s.meters = m; return nil }

func (s *shelf) archived(i int) *shelf { s.versions[i].ArchivedAt = time.Unix(1, 0); return s }

func (s *shelf) Publish(_ context.Context, _ plan.Plan, v plan.Version, _ time.Time) (plan.Version, bool, error) {
	latest := 0
	if len(s.versions) > 0 {
		latest = s.versions[0].Number
		if s.versions[0].Hash == v.ContentHash() && !s.quicker {
			return s.versions[0], false, nil
		}
	}
	v.Number = latest + 1
	if s.quicker {
		v.Number++
	}
	s.versions = slices.Insert(s.versions, 0, v)
	return v, true, nil
}

// offering reads the catalogue of base with some of it replaced; version 0 states none.
func offering(t *testing.T, version int, replace ...string) plan.Catalogue {
	t.Helper()
	text := strings.NewReplacer(replace...).Replace(base)
	if version > 0 {
		text = strings.Replace(text, "- code: pro", "- code: pro\n    version: "+strconv.Itoa(version), 1)
	}
	c, err := plan.ParseCatalogue([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const other = `"0.07"`

// selling has the terms of base on sale as the versions of the given prices of one minute, the first of which is version 1.
func selling(t *testing.T, prices ...string) *shelf {
	t.Helper()
	s := &shelf{}
	for _, p := range prices {
		if _, err := plan.Apply(t.Context(), s, offering(t, 0, `"0.05"`, p), time.Time{}); err != nil {
			t.Fatal(err)
		}
		s.versions[0].Hash = s.versions[0].ContentHash()
	}
	return s
}

func TestPreview_OfAVersionThatIsStated(t *testing.T) {
	t.Parallel()
	const this = `"0.05"`
	for name, c := range map[string]struct {
		on            *shelf
		stated        int
		before, after int
		fault         string // its code and where it stands; empty: none
	}{
		"NoneIsAndNoneIsStated":     {selling(t), 0, 0, 1, ""},
		"TheFirst":                  {selling(t), 1, 0, 1, ""},
		"NotTheFirst":               {selling(t), 2, 0, 0, "version_gap #/plans/0/version"},
		"WhatIsOnSale":              {selling(t, other, this), 2, 2, 2, ""},
		"WhatIsOnSaleUnstated":      {selling(t, other, this), 0, 2, 2, ""},
		"TheNext":                   {selling(t, this, other), 3, 2, 3, ""},
		"TheNextUnstated":           {selling(t, this, other), 0, 2, 3, ""},
		"OneTooMany":                {selling(t, this, other), 4, 0, 0, "version_gap #/plans/0/version"},
		"OtherTermsThanAreOnSale":   {selling(t, this, other), 2, 0, 0, "version_immutable #/plans/0/charges/0/prices/USD/tiers/0/unit_price"},
		"OtherTermsThanWereOnSale":  {selling(t, other, this), 1, 0, 0, "version_immutable #/plans/0/charges/0/prices/USD/tiers/0/unit_price"},
		"WhatWasOnSaleBefore":       {selling(t, this, other), 1, 0, 0, "version_superseded #/plans/0/version"},
		"WhatIsOffSale":             {selling(t, this).archived(0), 1, 0, 0, "version_superseded #/plans/0/version"},
		"TheNextOfWhatIsOffSale":    {selling(t, this).archived(0), 2, 0, 2, ""},
		"UnstatedOfWhatIsOffSale":   {selling(t, this).archived(0), 0, 0, 2, ""},
		"OtherTermsOfWhatIsOffSale": {selling(t, other).archived(0), 1, 0, 0, "version_immutable #/plans/0/charges/0/prices/USD/tiers/0/unit_price"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			effects, err := plan.Preview(t.Context(), c.on, offering(t, c.stated))
			if c.fault != "" {
				e, ok := errors.AsType[*errs.Error](err)
				if !ok || !errors.Is(err, plan.ErrImmutable) || len(e.Fields) != 1 || e.Fields[0].Code+" "+e.Fields[0].Pointer != c.fault {
					t.Fatalf("%v, %+v; want %s", err, e, c.fault)
				}
				if next := strconv.Itoa(len(c.on.versions) + 1); !strings.Contains(e.Fields[0].Detail, next) {
					t.Errorf("said is %q, and not that the next is %s", e.Fields[0].Detail, next)
				}
				return
			}
			if err != nil || len(effects) != 1 || effects[0].Before != c.before || effects[0].After != c.after {
				t.Fatalf("%+v, %v; want that %d becomes %d", effects, err, c.before, c.after)
			}
		})
	}
}

// What is refused is pointed at in the document, in which charges and limits are lists.
func TestPreview_PointsIntoTheDocument(t *testing.T) {
	t.Parallel()
	least := func(usd string) []string {
		return []string{"    charges:\n", "    minimum: {USD: " + usd + "}\n    charges:\n"}
	}
	for name, c := range map[string]struct {
		had, has []string // of base, what is replaced in what is on sale and in the document
		want     string
	}{
		"TheSecondCharge": {nil, []string{`"0.06"`, `"0.05"`}, "#/plans/0/charges/1/prices/USD/unit_price"},
		"TheSizeOfAUnit":  {nil, []string{"match: {region: eu}\n        per: minute", "match: {region: eu}"}, "#/plans/0/charges/1/per"},
		"ALimit":          {nil, []string{"quantity: 500", "quantity: 600"}, "#/plans/0/limits/0/quantity"},
		"NoCharge":        {nil, []string{"      - {code: support, percent: {rate: 10, of: [voice, voice_eu]}}\n", ""}, "#/plans/0/charges"},
		"NoLimit":         {nil, []string{"    limits:\n      - {meter: voice, quantity: 500, unit: minute, mode: soft}\n", ""}, "#/plans/0/limits"},
		"ASum":            {least("5"), least("6"), "#/plans/0/minimum/USD"},
		"AFirstSum":       {nil, least("6"), "#/plans/0/minimum"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			on := &shelf{}
			if _, err := plan.Apply(t.Context(), on, offering(t, 0, c.had...), time.Time{}); err != nil {
				t.Fatal(err)
			}
			_, err := plan.Preview(t.Context(), on, offering(t, 1, c.has...))
			e, ok := errors.AsType[*errs.Error](err)
			if !ok || len(e.Fields) != 1 || e.Fields[0].Pointer != c.want {
				t.Fatalf("%v, %+v; want %s", err, e, c.want)
			}
			if said := e.Fields[0].Detail; !strings.Contains(said, "state 2,") || strings.Contains(said, "with nothing here") != (name == "AFirstSum") {
				t.Errorf("said is %q", said)
			}
		})
	}
}

func TestApply_AnotherPublisherWasQuicker(t *testing.T) {
	t.Parallel()
	on := selling(t, other)
	on.quicker = true
	if _, err := plan.Apply(t.Context(), on, offering(t, 2), time.Time{}); !errors.Is(err, plan.ErrVersionTaken) {
		t.Errorf("%v, want that the version is taken", err)
	}
	on = selling(t, other)
	on.quicker = true
	if effects, err := plan.Apply(t.Context(), on, offering(t, 0), time.Time{}); err != nil || effects[0].After != 3 {
		t.Errorf("%+v, %v; want version 3, as none was stated", effects, err)
	}
}

// A meter by which usage is recorded measures the same for ever; its dimensions may become more.
func TestSameMeasure(t *testing.T) {
	t.Parallel()
	voice := plan.Meter{Code: "voice", Unit: "second", Aggregation: plan.Sum, Dimensions: []string{"model"}}
	plain := plan.Meter{Code: "voice", Unit: "second", Aggregation: plan.Sum}
	with := func(change func(m *plan.Meter)) plan.Meter {
		m := voice
		change(&m)
		return m
	}
	for name, c := range map[string]struct {
		old, now plan.Meter
		want     bool
	}{
		"TheSame":                  {voice, voice, true},
		"AnotherName":              {voice, with(func(m *plan.Meter) { m.Name = "Voice" }), true},
		"OneMoreDimension":         {voice, with(func(m *plan.Meter) { m.Dimensions = []string{"region", "model"} }), true},
		"AnotherCode":              {voice, with(func(m *plan.Meter) { m.Code = "video" }), false},
		"AnotherUnit":              {voice, with(func(m *plan.Meter) { m.Unit = "minute" }), false},
		"AnotherAggregation":       {voice, with(func(m *plan.Meter) { m.Aggregation = plan.Max }), false},
		"Reserved":                 {voice, with(func(m *plan.Meter) { m.Reserved = true }), false},
		"AnotherDimension":         {voice, with(func(m *plan.Meter) { m.Dimensions = []string{"region"} }), false},
		"NoDimension":              {voice, plain, false},
		"ItsFirstDimension":        {plain, voice, false},
		"NoDimensionAsThereIsNone": {plain, plain, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := plan.SameMeasure(c.old, c.now); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestPreview_NamesWhatAMeterWouldMeasureOtherwise(t *testing.T) {
	t.Parallel()
	on := selling(t, other)
	on.meters = slices.Clone(on.meters)
	on.meters[1].Unit, on.meters[2].Aggregation = "seat", plan.Last
	_, err := plan.Preview(t.Context(), on, offering(t, 0))
	e, _ := errors.AsType[*errs.Error](err)
	if !errors.Is(err, plan.ErrMeterChanged) || len(e.Fields) != 2 || e.Fields[0].Pointer != "#/meters/1/unit" || e.Fields[1].Pointer != "#/meters/2/aggregation" {
		t.Errorf("%v, %+v", err, e)
	}
}
