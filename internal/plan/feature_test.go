package plan_test

import (
	"os"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/internal/plan"
)

// What a pricing page says of the catalogues that there are, word by word.
func TestFeatures(t *testing.T) {
	t.Parallel()

	for file, want := range map[string]string{
		"catalogue.yaml": `
Developer
- Audio and video: 1,000 minutes per month, free
- Text: 10,000 words per month, free
- Call score: 50 criteria per month, free
- Real-time assist: 5 minutes per month, free
- Concurrent connections: 5 at a time
- No credit card required

Pro
- Audio and video: 1,000 minutes included per month
- Audio and video: $0.027 per minute up to 30,000 minutes, then $0.017 per minute
- Text: 10,000 words included per month
- Text: $0.0002 per word up to 3,750,000 words, then $0.00012 per word
- Call score: $0.10 per criterion
- Real-time assist: 5 minutes per month, free
- Concurrent connections: 50 at a time
- Credit card required

Enterprise
- Prices, limits and terms by agreement
`,
		"../../docs/catalogues/speech.yaml": `
Pay as you go
- Text to speech: $0.015 per thousand characters
- Text to speech: €0.014 per thousand characters
- Text to speech, premium voices: $0.03 per thousand characters
- Text to speech, premium voices: €0.028 per thousand characters
- Phone calls: $0.008 per minute
- Phone calls: €0.0075 per minute
- Phone calls to Germany: $0.012 per minute
- Phone calls to Germany: €0.011 per minute
- Phone calls to German mobiles: $0.025 per minute
- Phone calls to German mobiles: €0.023 per minute
- Credit card required

Growth
- At least $300.00 of usage per month
- At least €280.00 of usage per month
- Text to speech: $0.0135 per thousand characters
- Text to speech: €0.0126 per thousand characters
- Text to speech, premium voices: $0.027 per thousand characters
- Text to speech, premium voices: €0.0252 per thousand characters
- Credit card required
`,
		"../../docs/catalogues/credits.yaml": `
Starter
- $5.00 per month
- ¥750 per month
- Credits: 30,000 credits included per month
- Credit card required

Creator
- $22.00 per month
- ¥3,300 per month
- Credits: 100,000 credits included per month
- Credits: $0.30 per started 1,000 credits
- Credits: ¥45 per started 1,000 credits
- Credit card required

Business
- $330.00 per month
- ¥49,500 per month
- Credits: 2,000,000 credits included per month
- Credits: $0.18 per thousand credits up to 5,000,000 credits, then $0.12 per thousand credits
- Credits: ¥27 per thousand credits up to 5,000,000 credits, then ¥18 per thousand credits
- Credit card required

Team
- $99.00 per month
- ¥14,900 per month
- $120.00 of usage included per month
- ¥18,000 of usage included per month
- Credits: $0.20 per thousand credits
- Credits: ¥30 per thousand credits
- Credit card required
`,
		"../../docs/catalogues/identity.yaml": `
Essentials
- Monthly active users: 10,000 users included per month
- Monthly active users: $0.0055 per user up to 100,000 users, $0.0046 per user up to 1,000,000 users, $0.00325 per user up to 10,000,000 users, then $0.0025 per user
- Text messages: $0.07 per message
- Text messages to North America: $0.0075 per message
- Text messages to the United Kingdom: $0.04 per message
- Text messages to mobiles in the United Kingdom: $0.05 per message
- Support: 10% of Monthly active users
- Credit card required

By size
- Monthly active users: $35.00 up to 500 users, $70.00 up to 1,000 users, $700.00 up to 10,000 users, then $0.07 per user, by the total
- Credit card required
`,
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c, err := plan.ParseCatalogue(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := said(c); got != want {
			t.Errorf("%s says%s", file, got)
		}
	}
}

func TestFeatures_LimitsAndBounds(t *testing.T) {
	t.Parallel()

	c, err := plan.ParseCatalogue([]byte(`
currencies: [USD]
meters:
  - {code: search, name: Search, unit: query}
  - {code: calls, name: Calls, unit: second, units: {minute: 60}}
plans:
  - code: p
    name: P
    interval: year
    charges:
      - {meter: search, prices: {USD: {model: graduated, minimum: 5, maximum: 90, tiers: [{up_to: 1, flat: 2}, {flat: 1, unit_price: "0.5"}]}}}
      - {meter: calls, per: minute, included: 10}
      - {code: support, name: Support, percent: {rate: 12.5}}
    limits:
      - {meter: search, quantity: 1, mode: soft}
      - {meter: calls, quantity: 20, unit: minute}
`))
	if err != nil {
		t.Fatal(err)
	}
	const want = `
P
- Search: $2.00 up to 1 query, then $1.00 and $0.50 per query, at least $5.00 per year, at most $90.00 per year
- Calls: 10 minutes per year, free
- Support: 12.5% of all usage
- Search: fair use up to 1 query per year
- Calls: at most 20 minutes per year
- No credit card required
`
	if got := said(c); got != want {
		t.Errorf("it says%s", got)
	}
}

// said is what a pricing page would list of each plan.
func said(c plan.Catalogue) string {
	var out strings.Builder
	for _, o := range c.Offers {
		v := &o.Version
		if o.Plan.ContactSales {
			v = nil
		}
		out.WriteString("\n" + o.Plan.Name + "\n")
		for _, f := range plan.Features(o.Plan, v, c.Meters) {
			out.WriteString("- " + f.Text + "\n")
		}
	}
	return out.String()
}
