package cardguard_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/cardguard"
)

// published are numbers that providers publish for tests, in the grouping that they are printed in.
var published = []string{
	"4242 4242 4242 4242", "4000 0000 0000 0002", "4000 0000 0000 9995", "4000 0000 0000 3220", "4111 1111 1111 1111",
	"4012 8888 8888 1881", "4000 0566 5566 5556", "4000 0025 0000 3155", "4000 0027 6000 3184", "4000 0000 0000 0069",
	"5555 5555 5555 4444", "5200 8282 8282 8210", "5105 1051 0510 5100", "2223 0031 2200 3222", "2720 9999 9999 9996",
	"3782 822463 10005", "3714 496353 98431", "3400 000000 00009", "3056 930902 5904", "3622 720627 1667",
	"6011 1111 1111 1117", "6011 0009 9013 9424", "6011 9811 1111 1113",
	"3566 0020 2036 0505", "3530 1113 3330 0000", "6200 0000 0000 0005", "6200 0000 0000 0047", "6205 5000 0000 0000 004",
	"2200 0000 0000 0004", "6062 8288 8866 6688", "9792 0303 9444 0796", "5066 9911 1111 1118", "6362 9700 0045 7013",
	"6771 7980 2500 0004", "6759 6498 2643 8453", "6304 0000 0000 0000", "6304000000000", "5019 5555 4444 5555", "639002000000000003",
	"3600 666633 3344", "3569 9900 1009 5841", "6445 6445 6445 6445", "8171 9999 2766 0000",
}

// spellings are the ways in which people and programs write a card number.
var spellings = map[string]func(grouped string) string{
	"Plain":       func(s string) string { return strings.ReplaceAll(s, " ", "") },
	"Spaces":      func(s string) string { return s },
	"Dashes":      func(s string) string { return strings.ReplaceAll(s, " ", "-") },
	"Dots":        func(s string) string { return strings.ReplaceAll(s, " ", ".") },
	"Tabs":        func(s string) string { return strings.ReplaceAll(s, " ", "\t") },
	"NoBreak":     func(s string) string { return strings.ReplaceAll(s, " ", "\u00a0") },
	"ThinSpace":   func(s string) string { return strings.ReplaceAll(s, " ", "\u2009") },
	"EnDash":      func(s string) string { return strings.ReplaceAll(s, " ", "\u2013") },
	"ZeroWidth":   func(s string) string { return strings.ReplaceAll(s, " ", "\u200b") },
	"Slashes":     func(s string) string { return strings.ReplaceAll(s, " ", "/") },
	"Underscores": func(s string) string { return strings.ReplaceAll(s, " ", "_") },
	"DoubleSpace": func(s string) string { return strings.ReplaceAll(s, " ", "  ") },
	"FullWidth":   func(s string) string { return digits(strings.ReplaceAll(s, " ", ""), '\uff10') },
	"ArabicIndic": func(s string) string { return digits(s, '\u0660') },
	"Monospace":   func(s string) string { return digits(s, '\U0001d7f6') }, // the last of five tens in a row
	"InASentence": func(s string) string {
		return "please charge " + strings.ReplaceAll(s, " ", "") + ", exp. 12/27, thanks"
	},
	"WithExpiry":  func(s string) string { return s + " 12/27 123" },
	"AfterFive":   func(s string) string { return "1 22 333 44 5 " + s },
	"ThreeSpaces": func(s string) string { return strings.ReplaceAll(s, " ", "   ") },
	"Quoted":      func(s string) string { return "card='" + s + "';" },
	"AfterColon":  func(s string) string { return "Visa:" + strings.ReplaceAll(s, " ", "") },
	"Underscored": func(s string) string { return "card_" + strings.ReplaceAll(s, " ", "") + "_x" },
}

func digits(s string, zero rune) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return zero + r - '0'
		}
		return r
	}, s)
}

func TestNumbersAreFoundHoweverWritten(t *testing.T) {
	t.Parallel()
	for name, spell := range spellings {
		for _, n := range published {
			text := spell(n)
			if !cardguard.HasNumber(text) {
				t.Errorf("%s: %q not found", name, text)
			}
			doc, err := json.Marshal([]any{"x", text})
			if err != nil {
				t.Fatal(err)
			}
			if got := cardguard.JSON(doc); len(got) != 1 || got[0].Pointer != "/1" {
				t.Errorf("%s: in %s found %+v", name, doc, got)
			}
		}
	}
}

func TestAWrongCheckDigitIsNoCard(t *testing.T) {
	t.Parallel()
	for _, n := range published {
		last := n[len(n)-1]
		wrong := n[:len(n)-1] + string('0'+(last-'0'+1)%10)
		if cardguard.HasNumber(wrong) {
			t.Errorf("%q found", wrong)
		}
	}
}

// All of these have a valid check digit.
func TestWhatIsNoCardNumber(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"OfNoScheme":           "1234567812345670",
		"BetweenSchemes":       "7000000000000005",
		"BeyondTheLast":        "9000000000000001",
		"VisaOfThirteenDigits": "4000000000006",
		"VisaOfFifteen":        "400000000000006",
		"MastercardOfFifteen":  "510000000000003",
		"AmericanOfSixteen":    "3400000000000000",
		"OneDigitTooMany":      "62055000000000000041",
		"ATelephoneNumber":     "+4242424242424242",
		"TelephoneInGroups":    "+4242 4242 4242 4242",
		"AfterALetter":         "x4242424242424242",
		"GroupsAfterALetter":   "x4242 4242 4242 4242",
		"BeforeALetter":        "4242424242424242x",
		"AFraction":            "0.4242424242424242",
		"AnIBAN":               "DE42 4242 4242 4242 4242 42",
		"AList":                "4242, 4242, 4242, 4242",
		"TheFirstApart":        "4242, 4242 4242 4242",
		"OtherSigns":           "4242€4242€4242€4242",
		"FourSpaces":           "4242    4242 4242 4242",
		"OtherGroups":          "42 424242 42424242",
	} {
		if cardguard.HasNumber(text) {
			t.Errorf("%s: %q is taken for a card", name, text)
		}
	}
}

// TestHarmlessTexts is the corpus that the tripwire must let pass: at most one in 10,000 of what
// callers of a billing API write all day.
func TestHarmlessTexts(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	kinds := map[string]func() string{
		"UUID": func() string { return randomUUID(r).String() },
		"DecimalUUID": func() string {
			return strings.Map(func(c rune) rune {
				if c >= 'a' && c <= 'f' {
					return '0' + rune(r.IntN(10))
				}
				return c
			}, randomUUID(r).String())
		},
		"Hash": func() string { return fmt.Sprintf("%016x%016x", r.Uint64(), r.Uint64()) },
		"RFC3339": func() string {
			return fmt.Sprintf("2026-%02d-%02dT%02d:%02d:%02d.%06dZ", 1+r.IntN(12), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), r.IntN(1e6))
		},
		"LocalTime": func() string {
			return fmt.Sprintf("2026-%02d-%02d %02d:%02d:%02d.%06d", 1+r.IntN(12), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), r.IntN(1e6))
		},
		"Millis":   func() string { return fmt.Sprint(1_700_000_000_000 + r.Int64N(200_000_000_000)) },
		"Micros":   func() string { return fmt.Sprint(1_700_000_000_000_000 + r.Int64N(200_000_000_000_000)) },
		"Nanos":    func() string { return fmt.Sprint(1_700_000_000_000_000_000 + r.Int64N(200_000_000_000_000_000)) },
		"Minor":    func() string { return fmt.Sprint(r.Int64N(1_000_000_000_000)) },
		"Decimal":  func() string { return fmt.Sprintf("%d.%09d", r.Int64N(1_000_000), r.Int64N(1_000_000_000)) },
		"Float":    func() string { return fmt.Sprint(r.Float64()) },
		"E164":     func() string { return fmt.Sprintf("+%d%09d", 1+r.IntN(998), r.Int64N(1_000_000_000)) },
		"E164Bare": func() string { return fmt.Sprintf("%d%09d", 1+r.IntN(998), r.Int64N(1_000_000_000)) },
		"German":   func() string { return fmt.Sprintf("4915%09d", r.Int64N(1_000_000_000)) },
		"American": func() string { return fmt.Sprintf("(%03d) %03d-%04d", 201+r.IntN(700), r.IntN(1000), r.IntN(10000)) },
		"IBAN":     func() string { return fmt.Sprintf("DE%02d%018d", r.IntN(97), r.Int64N(1_000_000_000_000_000_000)) },
		"IBANSpaced": func() string {
			return fmt.Sprintf("DE%02d 50%02d %04d %04d %04d %02d", r.IntN(97), r.IntN(100), r.IntN(1e4), r.IntN(1e4), r.IntN(1e4), r.IntN(100))
		},
		"IP":      func() string { return fmt.Sprintf("%d.%d.%d.%d", r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(256)) },
		"Invoice": func() string { return fmt.Sprintf("INV-2026-%06d", r.IntN(1e6)) },
		"Dates": func() string {
			return fmt.Sprintf("2026-%02d-%02d..2026-%02d-%02d", 1+r.IntN(12), 1+r.IntN(28), 1+r.IntN(12), 1+r.IntN(28))
		},
		"Address": func() string { return fmt.Sprintf("%d Main Street, Springfield %05d", 1+r.IntN(9999), r.IntN(1e5)) },
		"VAT":     func() string { return fmt.Sprintf("DE%09d", r.IntN(1e9)) },
	}
	const each = 10_000
	for name, make := range kinds {
		found, example := 0, ""
		for range each {
			if s := make(); cardguard.HasNumber(s) {
				found, example = found+1, s
			}
		}
		if found*10_000 > each {
			t.Errorf("%s: %d of %d taken for a card, such as %q", name, found, each, example)
		}
	}
}

func randomUUID(r *rand.Rand) uuid.UUID {
	var u uuid.UUID
	for i := range u {
		u[i] = byte(r.Uint32())
	}
	u[6], u[8] = u[6]&0x0f|0x70, u[8]&0x3f|0x80
	return u
}

func TestForbiddenNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"number", "Number", "pan", "PAN", "card_number", "cardNumber", "CARD-NUMBER", "card.number", "cvc", "cvv", "CVV2", "track", "track_2", "security code"} {
		if !cardguard.ForbiddenName(name) {
			t.Errorf("%q is let pass", name)
		}
	}
	for _, name := range []string{"", "numbers", "phone_number", "invoice_number", "panel", "tracking", "name", "cardholder", strings.Repeat("number", 100)} {
		if cardguard.ForbiddenName(name) {
			t.Errorf("%q is refused", name)
		}
	}
}

func TestJSONNamesThePlaces(t *testing.T) {
	t.Parallel()
	const pan = "4242424242424242"
	for name, tc := range map[string]struct {
		doc  string
		want []string
	}{
		"Text":            {`{"name":"` + pan + `"}`, []string{"/name"}},
		"Nested":          {`{"a":[{"b":"x"},{"b":"` + pan + `"}]}`, []string{"/a/1/b"}},
		"Number":          {`{"a":` + pan + `}`, []string{"/a"}},
		"NumberInList":    {`[1,` + pan + `]`, []string{"/1"}},
		"Escaped":         {`{"a":"\u0034242424242424242"}`, []string{"/a"}},
		"EscapedSpace":    {`{"a":"4242\u00204242\u00204242\u00204242"}`, []string{"/a"}},
		"FullWidth":       {`{"a":"` + digits(pan, '\uff10') + `"}`, []string{"/a"}},
		"InAName":         {`{"x":{"` + pan + `":1}}`, []string{"/x"}},
		"ForbiddenName":   {`{"card":{"cvc":"123"}}`, []string{"/card/cvc"}},
		"ForbiddenEscape": {`{"card":{"c\u0076c":"123"}}`, []string{"/card/cvc"}},
		"ForbiddenSpread": {`{"c_r_e_d_i_t_c_a_r_d_n_u_m_b_e_r_____":1}`, []string{"/c_r_e_d_i_t_c_a_r_d_n_u_m_b_e_r_____"}},
		"ForbiddenNull":   {`{"number":null}`, []string{"/number"}},
		"Identifier":      {`{"id":"` + pan + `","call_id":"` + pan + `"}`, nil},
		"Identifiers":     {`{"ids":["` + pan + `"],"call_ids":[1,"` + pan + `"]}`, nil},
		"ListOfASingular": {`{"id":["` + pan + `"]}`, []string{"/id/0"}},
		"ListOfOthers":    {`{"bids":["` + pan + `"]}`, []string{"/bids/0"}},
		"WithinAList":     {`{"ids":[{"note":"` + pan + `"}]}`, []string{"/ids/0/note"}},
		"ForbiddenSpaced": {"{\"cvc\" \n: 1}", []string{"/cvc"}},
		"ForbiddenValue":  {`{"a":"number"}`, nil},
		"NDJSON":          {"{\"a\":1}\n{\"a\":\"" + pan + "\"}\n", []string{"/a"}},
		"Bare":            {pan, []string{""}},
		"NotJSONHarmless": {`name=x`, nil},
		"NotJSON":         {`name=` + pan, []string{""}},
		"DigitsBefore":    {`{"at":1732968000000,"b":"` + pan + `"}`, []string{"/b"}},
		"DigitsInOneText": {`{"a":"1732968000000, ` + pan + `"}`, []string{"/a"}},
		"Broken":          {`{"a":"x` + pan, nil},
		"BrokenAfter":     {`{"a":"` + pan + `"`, []string{"/a"}},
		"Duplicate":       {`{"a":1,"a":"` + pan + `"}`, []string{"/a"}},
		"DuplicateBoth":   {`{"a":"` + pan + `","a":"` + pan + `"}`, []string{"/a"}},
		"Many":            {`{"events":[{"note":"` + pan + `"},{"note":"x"},{"cvc":"` + pan + `","pan":1}]}`, []string{"/events/0/note", "/events/2/cvc", "/events/2/pan"}},
		"WithinAName":     {`{"x":{"` + pan + `":{"note":"` + pan + `"},"` + pan + `1":1},"y":"` + pan + `"}`, []string{"/x", "/y"}},
		"BrokenLater":     {`{"a":"` + pan + `","b":`, []string{"/a"}},
		"Harmless":        {`{"events":[{"id":"call-8f2c","meter":"voice","quantity":"63.5","timestamp":"2026-11-23T10:15:00Z"}]}`, nil},
		"Empty":           {``, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// What follows is harmless, but not at a glance.
			for _, doc := range []string{tc.doc, tc.doc + "\n\"é\""} {
				var got []string
				for _, f := range cardguard.JSON([]byte(doc)) {
					got = append(got, f.Pointer)
					if strings.Contains(f.Pointer, pan) {
						t.Error("the pointer holds the number")
					}
				}
				if !slices.Equal(got, tc.want) {
					t.Errorf("JSON(%s) = %q, want %q", doc, got, tc.want)
				}
			}
		})
	}
}

// A body of 8 MiB may hold very many: what is said of them stays short.
func TestJSONNamesSoManyPlaces(t *testing.T) {
	t.Parallel()
	doc := "[" + strings.Repeat(`"4242424242424242",`, 10_000) + "1]"
	if n := len(cardguard.JSON([]byte(doc))); n != cardguard.MaxFindings {
		t.Errorf("%d places, want %d", n, cardguard.MaxFindings)
	}
}

func FuzzJSON(f *testing.F) {
	f.Add("name", "4242424242424242")
	f.Add("a", "4242 4242-4242.4242")
	f.Add("", "\uff14242")
	f.Fuzz(func(t *testing.T, name, value string) {
		doc, err := json.Marshal(map[string]string{name: value})
		if err != nil {
			t.Skip()
		}
		var back map[string]string // invalid UTF-8 has been replaced
		if err := json.Unmarshal(doc, &back); err != nil {
			t.Fatal(err)
		}
		for n, v := range back {
			want := cardguard.ForbiddenName(n) || cardguard.HasNumber(n) ||
				(n != "id" && !strings.HasSuffix(n, "_id") && cardguard.HasNumber(v))
			if got := len(cardguard.JSON(doc)) > 0; got != want {
				t.Fatalf("JSON(%s) = %v, want %v", doc, got, want)
			}
		}
	})
}

func BenchmarkJSON(b *testing.B) {
	var doc strings.Builder
	doc.WriteString(`{"events":[`)
	for i := range 100 {
		if i > 0 {
			doc.WriteByte(',')
		}
		fmt.Fprintf(&doc, `{"id":"call-%017d","source":"media-eu-1","meter":"voice","quantity":"63.5","timestamp":"2026-11-23T10:15:00Z","dimensions":{"project":"helpdesk"}}`, i)
	}
	doc.WriteString(`]}`)
	data := []byte(doc.String())
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if len(cardguard.JSON(data)) > 0 {
			b.Fatal("found")
		}
	}
}
