package plan_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

// base is a small catalogue; the tests spoil it in one place each.
const base = `
currencies: [USD]
meters:
  - {code: voice, unit: second, units: {minute: 60}, dimensions: [model, region]}
  - {code: users, unit: user, aggregation: unique}
  - {code: lines, unit: line, aggregation: max, reserved: true}
plans:
  - code: pro
    charges:
      - meter: voice
        per: minute
        included: 10
        prices:
          USD:
            model: graduated
            tiers:
              - {from: 11, up_to: 100, unit_price: "0.05"}
              - {from: 101, unit_price: "0.03"}
      - code: voice_eu
        meter: voice
        match: {region: eu}
        per: minute
        prices: {USD: {model: per_unit, unit_price: "0.06"}}
      - {code: support, percent: {rate: 10, of: [voice, voice_eu]}}
    limits:
      - {meter: voice, quantity: 500, unit: minute, mode: soft}
`

func spoil(tb testing.TB, old, with string) string {
	tb.Helper()
	if !strings.Contains(base, old) {
		tb.Fatalf("the catalogue does not contain %q", old)
	}
	return strings.Replace(base, old, with, 1)
}

func TestParseCatalogueReadsQuantitiesIntoTheUnitOfTheMeter(t *testing.T) {
	t.Parallel()

	c, err := plan.ParseCatalogue([]byte(base))
	if err != nil {
		t.Fatal(err)
	}
	o, ok := c.Offer("pro")
	if !ok {
		t.Fatal("there is no plan pro")
	}
	v := o.Version
	for what, got := range map[string][2]string{
		"allowance": {v.Charges[0].Included.String(), "600"},
		"tier":      {v.Charges[0].Prices[0].Tiers[0].UpTo.String(), "6000"},
		"limit":     {v.Limits[0].Quantity.String(), "30000"},
		"included":  {v.Included("voice").String(), "600"},
		"price":     {v.Charges[0].Prices[0].Tiers[0].UnitPrice.String(), "0.05"},
	} {
		if got[0] != got[1] {
			t.Errorf("the %s is %s, want %s", what, got[0], got[1])
		}
	}
	if len(v.Currencies) != 1 || v.Currencies[0] != money.USD {
		t.Errorf("currencies %v", v.Currencies)
	}
	if v.Hash == "" || v.Hash != v.ContentHash() {
		t.Errorf("hash %q", v.Hash)
	}
}

func TestParseCatalogueReadsJSONToo(t *testing.T) {
	t.Parallel()

	const doc = `{"currencies":["JPY"],"meters":[{"code":"m","unit":"call"}],
		"plans":[{"code":"p","fee":{"prices":{"JPY":"1500"}},"charges":[{"meter":"m","prices":{"JPY":{"model":"package","package":100,"unit_price":"7"}}}]}]}`
	c, err := plan.ParseCatalogue([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Offers[0].Version.Fee.Prices[0]; got != money.New(1500, "JPY") {
		t.Errorf("the fee is %s", got)
	}
}

func TestShippedCatalogueIsValid(t *testing.T) {
	t.Parallel()

	c := plan.Shipped()
	if len(c.Offers) != 3 || c.Source == "" {
		t.Errorf("%d plans from %q", len(c.Offers), c.Source)
	}
	for _, want := range []struct {
		code     plan.Code
		meter    plan.MeterCode
		quantity string
	}{
		{plan.Developer, "voice", "60000"},
		{plan.Developer, "text", "10000"},
		{plan.Developer, "call_score", "50"},
		{plan.Developer, "realtime_assist", "300"},
		{plan.Developer, "concurrent_connections", "5"},
		{plan.Pro, "realtime_assist", "300"},
		{plan.Pro, "concurrent_connections", "50"},
	} {
		o, _ := c.Offer(want.code)
		l, ok := o.Version.Limit(want.meter)
		if !ok || l.Quantity.String() != want.quantity || l.Mode != plan.Hard {
			t.Errorf("%s limits %s at %+v, want %s, hard", want.code, want.meter, l, want.quantity)
		}
	}
	enterprise, _ := c.Offer(plan.Enterprise)
	if !enterprise.Plan.ContactSales || enterprise.Version.Priced() {
		t.Errorf("enterprise: %+v", enterprise)
	}
	pro, _ := c.Offer(plan.Pro)
	if !pro.Plan.RequiresCard {
		t.Error("pro needs no card")
	}
	if _, ok := pro.Version.Limit("voice"); ok {
		t.Error("voice is limited on pro")
	}
}

// Whatever is within them costs less than a hundredth of the greatest amount.
func TestMaxQuantitiesFollowFromTheDearestPrice(t *testing.T) {
	t.Parallel()

	shipped := plan.Shipped()
	pro, _ := shipped.Offer(plan.Pro)
	got := fmt.Sprint(pro.Version.MaxQuantities("USD"))
	if want := "map[call_score:1000000000000 text:100000000000000 voice:100000000000000]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for name, want := range map[string]string{ // prices of a unit
		"{model: per_unit, unit_price: \"1000000000\"}":                                                    "100",
		"{model: package, package: 1000, unit_price: \"1000000000\"}":                                      "100000",
		"{model: volume, tiers: [{up_to: 10, unit_price: \"1000000000\"}, {unit_price: \"0.000000001\"}]}": "100",
		"{model: per_unit, unit_price: \"100000000000000\"}":                                               "1",
	} {
		c, err := plan.ParseCatalogue([]byte(`
source: test
currencies: [USD]
meters: [{code: n, name: N, unit: one, aggregation: sum}]
plans: [{code: pro, name: Pro, charges: [{meter: n, prices: {USD: ` + name + `}}]}]`))
		if err != nil {
			t.Fatal(name, err)
		}
		if got := c.Offers[0].Version.MaxQuantities("USD")["n"].String(); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// Every bad entry is named by a pointer and a code, and nothing is returned besides.
func TestParseCatalogueNamesEveryFault(t *testing.T) {
	t.Parallel()

	const tiers = "#/plans/0/charges/0/prices/USD/tiers"
	for _, c := range []struct{ name, old, with, pointer, code string }{
		{"UnknownField", "code: pro", "code: pro\n    colour: red", "#/plans/0/colour", "unknown_field"},
		{"TierOverlap", "from: 101", "from: 90", tiers + "/1/from", "tier_overlap"},
		{"TierGap", "from: 101", "from: 150", tiers + "/1/from", "tier_gap"},
		{"FirstTierGap", "from: 11", "from: 50", tiers + "/0/from", "tier_gap"},
		{"TiersUnsorted", `- {from: 101, unit_price: "0.03"}`, `- {up_to: 50, unit_price: "0.03"}` + "\n              - {unit_price: 0.01}", tiers + "/1/up_to", "tier_order"},
		{"TwoOpenTiers", "from: 11, up_to: 100, ", "", tiers + "/0/up_to", "tier_overlap"},
		{"LastTierEnds", "from: 101,", "from: 101, up_to: 1000,", tiers + "/1/up_to", "tier_gap"},
		{"NegativePrice", `"0.03"`, `"-0.03"`, tiers + "/1/unit_price", "negative"},
		{"TenDecimals", `"0.03"`, `"0.0300000001"`, tiers + "/1/unit_price", "decimal"},
		{"Exponent", `"0.03"`, `3e-2`, tiers + "/1/unit_price", "decimal"},
		{"NotANumber", `"0.03"`, `.nan`, tiers + "/1/unit_price", "type"},
		{"NullPrice", `unit_price: "0.03"`, `unit_price: ~`, tiers + "/1/unit_price", "type"},
		{"NoPrice", `, unit_price: "0.05"`, ``, tiers + "/0/unit_price", "required"},
		{"UnknownMeter", "- meter: voice\n        per: minute\n        included", "- meter: vioce\n        per: minute\n        included", "#/plans/0/charges/0/meter", "unknown_meter"},
		{"UnknownUnit", "per: minute\n        included", "per: hour\n        included", "#/plans/0/charges/0/per", "unknown_unit"},
		{"UnknownDimension", "{region: eu}", "{zone: eu}", "#/plans/0/charges/1/match/zone", "unknown_dimension"},
		{"BadPattern", "{region: eu}", `{region: "e*u"}`, "#/plans/0/charges/1/match/region", "pattern"},
		{"NoCatchAll", "- meter: voice\n        per: minute\n        included", "- meter: voice\n        match: {model: a}\n        per: minute\n        included", "#/plans/0/charges/0/match", "gap"},
		{"UnknownCurrency", "USD: {model", "EUR: {model", "#/plans/0/charges/1/prices/EUR", "currency_mismatch"},
		{"NotACurrency", "currencies: [USD]", "currencies: [USD, Dollar]", "#/currencies/1", "currency"},
		{"MissingCurrency", "currencies: [USD]", "currencies: [USD, EUR]", "#/plans/0/charges/0/prices/EUR", "required"},
		{"UnknownModel", "model: graduated", "model: progressive", "#/plans/0/charges/0/prices/USD/model", "model"},
		{"FieldOfAnotherModel", "model: per_unit,", "model: per_unit, package: 5,", "#/plans/0/charges/1/prices/USD/package", "model"},
		{"EmptyTiers", "model: per_unit, unit_price: \"0.06\"", "model: volume, tiers: []", "#/plans/0/charges/1/prices/USD/tiers", "required"},
		{"ZeroPackage", "model: per_unit,", "model: package, package: 0,", "#/plans/0/charges/1/prices/USD/package", "package"},
		{"MaximumBelowMinimum", "model: per_unit,", "model: per_unit, minimum: 5, maximum: 4,", "#/plans/0/charges/1/prices/USD/maximum", "maximum"},
		{"HalfACent", "model: per_unit,", "model: per_unit, minimum: 0.005,", "#/plans/0/charges/1/prices/USD/minimum", "amount"},
		{"TooMuchMoney", "model: per_unit,", "model: per_unit, minimum: 99999999999999,", "#/plans/0/charges/1/prices/USD/minimum", "amount"},
		{"QuantityOutOfRange", "included: 10", "included: 999999999999999", "#/plans/0/charges/0/included", "quantity"},
		{"ZeroStep", "included: 10", "step: 0", "#/plans/0/charges/0/step", "step"},
		{"DuplicateCharge", "code: voice_eu", "code: voice", "#/plans/0/charges/1/code", "duplicate"},
		{"AmbiguousMatch", "{region: eu}", "{region: eu}\n        prices: {USD: {model: per_unit, unit_price: 1}}\n      - code: x\n        meter: voice\n        match: {model: ab}", "#/plans/0/charges/2/match", "ambiguous"},
		{"PercentOfNothing", "of: [voice, voice_eu]", "of: [voice, text]", "#/plans/0/charges/2/percent/of/1", "unknown_charge"},
		{"PercentOfPercent", "of: [voice, voice_eu]", "of: [support]", "#/plans/0/charges/2/percent/of/0", "unknown_charge"},
		{"PercentWithMeter", "{code: support,", "{code: support, meter: voice,", "#/plans/0/charges/2/meter", "percent"},
		{"PercentTooHigh", "rate: 10,", "rate: 1001,", "#/plans/0/charges/2/percent/rate", "rate"},
		{"LimitOnUnknownMeter", "- {meter: voice, quantity: 500", "- {meter: x, quantity: 500", "#/plans/0/limits/0/meter", "unknown_meter"},
		{"TwoLimits", "mode: soft}", "mode: soft}\n      - {meter: voice, quantity: 1}", "#/plans/0/limits/1", "duplicate"},
		{"UnknownMode", "mode: soft", "mode: gentle", "#/plans/0/limits/0/mode", "mode"},
		{"PricedReservations", "- {code: support", "- {meter: lines, prices: {USD: {model: per_unit, unit_price: 1}}}\n      - {code: support", "#/plans/0/charges/2/meter", "reserved_meter"},
		{"UniqueWithDimensions", "aggregation: unique", "aggregation: unique, dimensions: [model]", "#/meters/1/dimensions", "unique_dimensions"},
		{"UnknownAggregation", "aggregation: unique", "aggregation: mean", "#/meters/1/aggregation", "aggregation"},
		{"TooManyDimensions", "[model, region]", "[model, region, a, b, c, d]", "#/meters/0/dimensions", "too_many"},
		{"MeterTwice", "code: users", "code: voice", "#/meters/1/code", "duplicate"},
		{"MeterWithoutUnit", "unit: user,", "", "#/meters/1/unit", "required"},
		{"BadCode", "code: pro", "code: Pro!", "#/plans/0/code", "code"},
		{"BadInterval", "code: pro", "code: pro\n    interval: week", "#/plans/0/interval", "interval"},
		{"ContactSalesWithPrices", "code: pro", "code: pro\n    contact_sales: true", "#/plans/0/contact_sales", "contact_sales"},
		{"TextForBoolean", "code: pro", "code: pro\n    requires_card: sometimes", "#/plans/0/requires_card", "type"},
		{"ControlCharacter", "code: pro", `code: pro` + "\n    name: \"a\\u0007b\"", "#/plans/0/name", "control_character"},
		{"Bidi", "code: pro", `code: pro` + "\n    name: \"a\\u202eb\"", "#/plans/0/name", "control_character"},
		{"Anchor", "code: pro", "code: &x pro", "#/plans/0/code", "type"},
		{"FeeInCents", "code: pro", "code: pro\n    fee: {prices: {USD: \"9.999\"}}", "#/plans/0/fee/prices/USD", "amount"},
		{"ListForMapping", "limits:\n      - {meter: voice, quantity: 500, unit: minute, mode: soft}", "limits: {meter: voice}", "#/plans/0/limits", "type"},
		{"EmptyCode", "code: pro", `code: ""`, "#/plans/0/code", "required"},
		{"EmptyUnit", "unit: second", `unit: ""`, "#/meters/0/unit", "required"},
		{"UnitTwice", "units: {minute: 60}", "units: {minute: 60, second: 5}", "#/meters/0/units/second", "unit"},
		{"OddPointer", "code: pro", "code: pro\n    \"a/b~c d%\": 1", "#/plans/0/a~1b~0c%20d%25", "unknown_field"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := plan.ParseCatalogue([]byte(spoil(t, c.old, c.with)))
			var e *errs.Error
			if !errors.As(err, &e) || e.Kind != errs.Invalid {
				t.Fatalf("want it refused as invalid, got %v", err)
			}
			if len(got.Meters)+len(got.Offers) > 0 {
				t.Error("a refused catalogue was returned")
			}
			if !slices.ContainsFunc(e.Fields, func(f errs.Field) bool { return f.Pointer == c.pointer && f.Code == c.code && f.Detail != "" }) {
				t.Errorf("want %s at %s, got %+v", c.code, c.pointer, e.Fields)
			}
		})
	}
}

func TestLine(t *testing.T) {
	t.Parallel()
	for pointer, text := range map[string]string{
		"#/currencies/0":                              "currencies: [USD]",
		"#/meters/1/unit":                             "users",
		"#/meters/1/units":                            "users", // missing
		"#/plans/0/charges/0/prices/USD/tiers/1":      "from: 101",
		"#/plans/0/charges/1/match/region":            "match:",
		"#/plans/0/charges/1/prices/USD/package":      "0.06", // missing
		"#/plans/0/limits/0/mode":                     "soft",
		"#/plans/0/name":                              "code: pro", // missing
		"#/plans/9":                                   "plans:",
		"#/plans/0/charges/0/prices/USD/tiers/0/from": "from: 11",
	} {
		before, _, ok := strings.Cut(base, text)
		want := 1 + strings.Count(before, "\n")
		if got := plan.Line([]byte(base), pointer); !ok || got != want {
			t.Errorf("%s is on line %d, want %d", pointer, got, want)
		}
	}
	if got := plan.Line([]byte("a: [b: c: d"), "#/a"); got != 0 {
		t.Errorf("a text that is no YAML has it on line %d", got)
	}
}

func TestParseCatalogueNamesAllFaultsAtOnce(t *testing.T) {
	t.Parallel()

	_, err := plan.ParseCatalogue([]byte(strings.NewReplacer(`"0.05"`, `"-1"`, `"0.06"`, "abc", "mode: soft", "mode: x").Replace(base)))
	var e *errs.Error
	if !errors.As(err, &e) || len(e.Fields) != 3 {
		t.Errorf("want three faults, got %v", err)
	}
}

func TestUnreadableDocumentsAreMalformed(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		doc  string
		want error
	}{
		"Empty":        {"", plan.ErrUnreadable},
		"Comment":      {"# nothing\n", plan.ErrUnreadable},
		"Syntax":       {"a: b: c", plan.ErrUnreadable},
		"TwoDocuments": {"a: 1\n---\nb: 2\n", plan.ErrUnreadable},
		"DuplicateKey": {"plans: []\nplans: []\n", plan.ErrUnreadable},
		"NotUTF8":      {"a: \xff\xfe", plan.ErrUnreadable},
		"Scalar":       {"hello", plan.ErrInvalid},
		"TooLarge":     {strings.Repeat("#", plan.MaxDocument+1), plan.ErrTooLarge},
		"TooDeep":      {strings.Repeat("[", 100), plan.ErrTooLarge},
		"TooDeepDash":  {strings.Repeat("- ", 100), plan.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := plan.ParseCatalogue([]byte(c.doc)); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestDiffNamesWhatChanged(t *testing.T) {
	t.Parallel()

	a, err := plan.ParseCatalogue([]byte(base))
	if err != nil {
		t.Fatal(err)
	}
	b, err := plan.ParseCatalogue([]byte(strings.NewReplacer(
		`"0.05"`, `"0.055"`, "included: 10", "included: 20", "from: 11", "from: 21", "quantity: 500", "quantity: 600", "code: voice_eu", "code: voice_europe",
		", voice_eu]", ", voice_europe]",
	).Replace(base)))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range plan.Diff(a.Offers[0].Version, b.Offers[0].Version) {
		if len(c.Before) > 30 || len(c.After) > 30 { // a whole charge
			got = append(got, c.Pointer)
			continue
		}
		got = append(got, c.Pointer+" "+c.Before+" → "+c.After)
	}
	want := []string{
		"#/charges/support/percent/of/1 voice_eu → voice_europe",
		"#/charges/voice/included 600 → 1200",
		"#/charges/voice/prices/USD/tiers/0/unit_price 0.05 → 0.055",
		"#/charges/voice_eu",
		"#/charges/voice_europe",
		"#/limits/voice/quantity 30000 → 36000",
	}
	slices.SortFunc(got, strings.Compare)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if same := plan.Diff(a.Offers[0].Version, a.Offers[0].Version); len(same) > 0 {
		t.Errorf("a version differs from itself: %+v", same)
	}
}

func TestVersionSurvivesJSON(t *testing.T) {
	t.Parallel()

	for _, o := range plan.Shipped().Offers {
		b, err := json.Marshal(o.Version)
		if err != nil {
			t.Fatal(err)
		}
		var back plan.Version
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if back.ContentHash() != o.Version.Hash {
			t.Errorf("%s is another version after a round trip", o.Plan.Code)
		}
		back.Number = 7
		if back.ContentHash() != o.Version.Hash {
			t.Errorf("the number of %s is part of its hash", o.Plan.Code)
		}
	}
}

func TestLongestMatchPrices(t *testing.T) {
	t.Parallel()

	v := plan.Version{Charges: []plan.Charge{
		{Code: "any", Meter: "voice"},
		{Code: "eu", Meter: "voice", Match: map[string]string{"region": "eu*"}},
		{Code: "de", Meter: "voice", Match: map[string]string{"region": "eu-de"}},
		{Code: "eu_large", Meter: "voice", Match: map[string]string{"region": "eu*", "model": "large"}},
		{Code: "tagged", Meter: "voice", Match: map[string]string{"tag": "*"}},
		{Code: "other", Meter: "text"},
	}}
	for _, c := range []struct {
		dimensions map[string]string
		want       string
	}{
		{nil, "any"},
		{map[string]string{"region": "us"}, "any"},
		{map[string]string{"region": "eu-fr"}, "eu"},
		{map[string]string{"region": "eu-de"}, "de"},
		{map[string]string{"region": "eu-de", "model": "large"}, "eu_large"},
		{map[string]string{"model": "large"}, "any"},
		{map[string]string{"tag": "x"}, "tagged"}, // by whatever it says, if it says it
	} {
		if got := v.Charges[v.ChargeFor("voice", c.dimensions)].Code; got != c.want {
			t.Errorf("%v is priced by %s, want %s", c.dimensions, got, c.want)
		}
	}
	if got := v.ChargeFor("images", nil); got != -1 {
		t.Errorf("an unknown meter is priced by charge %d", got)
	}
}

func TestAMeterRoundsEachEventUp(t *testing.T) {
	t.Parallel()

	dec := money.MustDecimal
	for _, c := range []struct{ first, step, in, want string }{
		{"0", "6", "61", "66"},
		{"60", "6", "1", "60"},
		{"60", "6", "60", "60"},
		{"60", "6", "60.000000001", "66"},
		{"60", "60", "61", "120"},
		{"0", "1", "0", "0"}, // what does not count at all is not lifted
		{"60", "6", "0", "0"},
		{"30", "0", "31.5", "31.5"},
		{"0", "0", "31.5", "31.5"},
	} {
		m := plan.Meter{Rounding: plan.Rounding{First: dec(c.first), Step: dec(c.step)}}
		if got, err := m.Round(dec(c.in)); err != nil || got.Cmp(dec(c.want)) != 0 {
			t.Errorf("%s by %s/%s is %s, %v; want %s", c.in, c.first, c.step, got, err, c.want)
		}
	}
}

// Whatever the text, ParseCatalogue returns, and what it accepts it accepts with the same terms again
// after a round trip through JSON.
func FuzzParseCatalogue(f *testing.F) {
	f.Add([]byte(base))
	f.Add([]byte(`{"meters":[],"plans":[]}`))
	f.Add([]byte("meters:\n- {code: a, unit: b}\nplans:\n- {code: c, charges: [{meter: a}]}\n"))
	f.Add([]byte("a: &b [*b]\n<<: *b\n!!x y: |\n  z\n? - \n"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		c, err := plan.ParseCatalogue(doc)
		if err != nil {
			if k := errs.KindOf(err); k == errs.Internal {
				t.Fatalf("a fault of the document became a fault of ours: %v", err)
			}
			return
		}
		for _, o := range c.Offers {
			b, err := json.Marshal(o.Version)
			if err != nil {
				t.Fatal(err)
			}
			var back plan.Version
			if err := json.Unmarshal(b, &back); err != nil || back.ContentHash() != o.Version.Hash {
				t.Fatalf("%s reads back otherwise: %v", b, err)
			}
		}
	})
}
