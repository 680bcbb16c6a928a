package v1

import (
	"bytes"
	"encoding/json"
	"testing"

	"pgregory.net/rapid"
)

// An estimate is written by hand, and reads as if encoding/json had written it.
func TestEstimate_PropertyWrittenAsJSONWould(t *testing.T) {
	t.Parallel()

	text := rapid.OneOf(rapid.StringMatching(`[a-z0-9. -]{0,8}`), rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
	perhaps := rapid.Ptr(text, true)
	sum := rapid.Custom(func(t *rapid.T) Money { return Money{rapid.Int64().Draw(t, "minor"), text.Draw(t, "currency")} })
	units := rapid.Custom(func(t *rapid.T) InvoicedUnits {
		return InvoicedUnits{
			Over: text.Draw(t, "over"), UpTo: perhaps.Draw(t, "up to"), Quantity: text.Draw(t, "quantity"), Units: text.Draw(t, "units"), Unit: text.Draw(t, "unit"),
			UnitPrice: text.Draw(t, "price"), Flat: rapid.Ptr(sum, true).Draw(t, "flat"), Amount: sum.Draw(t, "amount"),
		}
	})
	line := rapid.Custom(func(t *rapid.T) EstimateLine {
		return EstimateLine{
			Kind: text.Draw(t, "kind"), Meter: perhaps.Draw(t, "meter"), Description: text.Draw(t, "description"), Quantity: text.Draw(t, "quantity"),
			Included: text.Draw(t, "included"), Billable: text.Draw(t, "billable"), Unit: perhaps.Draw(t, "unit"),
			Tiers: rapid.SliceOfN(units, 0, 2).Draw(t, "tiers"), Amount: sum.Draw(t, "amount"),
		}
	})
	blocked := rapid.Custom(func(t *rapid.T) BlockedUsage {
		return BlockedUsage{text.Draw(t, "meter"), text.Draw(t, "quantity"), text.Draw(t, "limit")}
	})
	rapid.Check(t, func(t *rapid.T) {
		e := Estimate{
			Plan: text.Draw(t, "plan"), Version: rapid.Int().Draw(t, "version"), Currency: text.Draw(t, "currency"),
			Lines: rapid.SliceOfN(line, 0, 2).Draw(t, "lines"), Blocked: rapid.SliceOfN(blocked, 0, 2).Draw(t, "blocked"), Total: sum.Draw(t, "total"),
		}
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(e); err != nil {
			t.Fatal(err)
		}
		if got := append(e.append(nil), '\n'); !bytes.Equal(got, want.Bytes()) {
			t.Fatalf("%s\n%s", got, want.Bytes())
		}
	})
}
