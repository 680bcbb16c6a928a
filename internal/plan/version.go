package plan

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/accrue-billing/accrue/pkg/money"
)

//go:embed catalogue.yaml
var shipped []byte

// Shipped returns the catalogue that the service comes with.
func Shipped() Catalogue {
	c, err := ParseCatalogue(shipped)
	if err != nil {
		panic("plan: the embedded catalogue: " + err.Error()) // a test keeps this from being built
	}
	return c
}

// ContentHash returns the SHA-256 of the version's terms, in hex. Its number and dates are not part
// of it: two versions with the same terms have the same hash.
func (v Version) ContentHash() string {
	v.Number = 0
	b, err := json.Marshal(v)
	if err != nil {
		panic("plan: a version that is no JSON: " + err.Error()) // it has only text, numbers and lists
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Round returns the quantity that one event counts with on the meter.
func (m *Meter) Round(d money.Decimal) (money.Decimal, error) {
	r := m.Rounding
	if d.Sign() <= 0 || r.IsZero() {
		return d, nil
	}
	if d.Cmp(r.First) <= 0 {
		return r.First, nil
	}
	if r.Step.IsZero() {
		return d, nil
	}
	n, err := d.Sub(r.First).CeilDiv(r.Step)
	if err != nil {
		return d, fmt.Errorf("round %s by %s: %w", d, r.Step, err)
	}
	return r.First.Add(r.Step.Mul(money.DecimalFromInt(n))), nil
}

// matches reports whether a series with these dimensions falls under the match.
func matches(match, dimensions map[string]string) bool {
	for k, pattern := range match {
		v, ok := dimensions[k]
		if !ok {
			return false
		}
		if prefix, wild := strings.CutSuffix(pattern, "*"); wild {
			if !strings.HasPrefix(v, prefix) {
				return false
			}
		} else if v != pattern {
			return false
		}
	}
	return true
}

// ChargeFor returns the index of the charge that prices a series: of those that match, the one with
// the most dimensions, then with the most literal characters. It is -1 where nothing prices it.
func (v *Version) ChargeFor(m MeterCode, dimensions map[string]string) int {
	best, bestRank := -1, -1
	for i := range v.Charges {
		c := &v.Charges[i]
		if c.Meter != m || c.Percent != nil {
			continue
		}
		if len(c.Match) == 0 {
			if bestRank < 0 {
				best, bestRank = i, 0
			}
			continue
		}
		if matches(c.Match, dimensions) {
			if n := rank(c.Match); n > bestRank {
				best, bestRank = i, n
			}
		}
	}
	return best
}
