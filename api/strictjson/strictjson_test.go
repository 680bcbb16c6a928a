package strictjson_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/pkg/money"
)

type document struct {
	Name   string         `json:"name"`
	Amount *money.Amount  `json:"amount"`
	Price  money.Decimal  `json:"price"`
	At     time.Time      `json:"at"`
	Flag   *bool          `json:"flag"`
	Count  uint16         `json:"count"`
	List   []item         `json:"list"`
	Free   map[string]any `json:"free"`
}

type item struct {
	ID string `json:"id"`
}

func TestUnmarshalRefuses(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat(`{"free":`, 40) + "1" + strings.Repeat("}", 40)
	for name, tc := range map[string]struct {
		body    string
		code    string // of the field, or of the error if no field is meant
		pointer string
	}{
		"Nothing":             {"", "body_required", ""},
		"OnlySpace":           {" \n\t ", "body_required", ""},
		"Null":                {"null", "wrong_type", "#"},
		"NotJSON":             {"name=x", "syntax", "#"},
		"XML":                 {"<name>x</name>", "syntax", "#"},
		"Truncated":           {`{"name":"x"`, "syntax", "#"},
		"TrailingData":        {`{"name":"x"} {"name":"y"}`, "malformed_json", ""},
		"TrailingComma":       {`{"name":"x",}`, "syntax", "#"},
		"TrailingAfterEscape": {`{"name":"\u00e9"} x`, "malformed_json", ""},
		"Comment":             {`{"name":"x"/*y*/}`, "syntax", "#"},
		"SingleQuotes":        {`{'name':'x'}`, "syntax", "#"},
		"AList":               {`[]`, "wrong_type", "#"},
		"AText":               {`"x"`, "wrong_type", "#"},
		"UnknownMember":       {`{"name":"x","account_id":"acct_1"}`, "unknown_member", "#/account_id"},
		"UnknownNested":       {`{"list":[{"id":"a"},{"id":"b","x":1}]}`, "unknown_member", "#/list/1/x"},
		"NameInOtherCase":     {`{"Name":"x"}`, "unknown_member", "#/Name"},
		"MemberTwice":         {`{"name":"x","name":"y"}`, "duplicate_member", "#/name"},
		"MemberTwiceEscaped":  {`{"name":"x","n\u0061me":"y"}`, "duplicate_member", "#/name"},
		"MemberTwiceNested":   {`{"free":{"a":1,"b":{"c":1,"c":2}}}`, "duplicate_member", "#/free/b/c"},
		"MemberTwiceInNFC":    {"{\"free\":{\"\u00e9\":1,\"e\u0301\":2}}", "duplicate_member", "#/free/%C3%A9"},
		"NumberForText":       {`{"name":1}`, "wrong_type", "#/name"},
		"TextForBool":         {`{"flag":"true"}`, "wrong_type", "#/flag"},
		"FractionForMoney":    {`{"amount":{"amount":1.5,"currency":"USD"}}`, "invalid_value", "#/amount/amount"},
		"FractionZero":        {`{"amount":{"amount":1.0,"currency":"USD"}}`, "invalid_value", "#/amount/amount"},
		"ExponentForMoney":    {`{"amount":{"amount":1e3,"currency":"USD"}}`, "invalid_value", "#/amount/amount"},
		"TextForMoney":        {`{"amount":{"amount":"5","currency":"USD"}}`, "wrong_type", "#/amount/amount"},
		"MoneyTooLarge":       {`{"amount":{"amount":9223372036854775808,"currency":"USD"}}`, "invalid_value", "#/amount/amount"},
		"NegativeCount":       {`{"count":-1}`, "invalid_value", "#/count"},
		"NumberForDecimal":    {`{"price":0.5}`, "invalid_value", "#/price"},
		"DecimalTooFine":      {`{"price":"0.1234567891"}`, "invalid_value", "#/price"},
		"NaN":                 {`{"count":NaN}`, "syntax", "#/count"},
		"LeadingZero":         {`{"count":01}`, "syntax", "#"},
		"NotATime":            {`{"at":"yesterday"}`, "invalid_value", "#/at"},
		"TimeOfAnotherType":   {`{"at":1}`, "wrong_type", "#/at"},
		"TimeOfYearTenK":      {`{"at":"9999-12-31T23:59:59-12:00"}`, "invalid_value", "#/at"},
		"TimeOfYear9999":      {`{"at":"9999-01-01T00:00:00Z"}`, "invalid_value", "#/at"},
		"TimeBeforeYearOne":   {`{"at":"0001-01-01T00:00:00+01:00"}`, "invalid_value", "#/at"},
		"TimeThatMeansNone":   {`{"at":"0001-01-01T00:00:00Z"}`, "invalid_value", "#/at"},
		"TimeWithAComma":      {`{"at":"2026-11-23T10:15:00,5Z"}`, "invalid_value", "#/at"},
		"TimeOfAShortHour":    {`{"at":"2026-11-23T1:15:00Z"}`, "invalid_value", "#/at"},
		"TimeADayOff":         {`{"at":"2026-11-23T10:15:00+24:00"}`, "invalid_value", "#/at"},
		"NUL":                 {`{"name":"a\u0000b"}`, "invalid_text", "#/name"},
		"RawControl":          {"{\"name\":\"a\x01b\"}", "syntax", "#/name"},
		"Delete":              {"{\"name\":\"a\x7fb\"}", "invalid_text", "#/name"},
		"C1":                  {`{"name":"a\u0085b"}`, "invalid_text", "#/name"},
		"Bidi":                {`{"name":"a\u202eb"}`, "invalid_text", "#/name"},
		"BidiIsolate":         {"{\"name\":\"a\u2066b\"}", "invalid_text", "#/name"},
		"Noncharacter":        {`{"name":"a\uffffb"}`, "invalid_text", "#/name"},
		"LoneSurrogate":       {`{"name":"\ud800"}`, "invalid_text", "#/name"},
		"InvalidUTF8":         {"{\"name\":\"a\xffb\"}", "invalid_text", "#"},
		"ControlInName":       {`{"free":{"a\u0000":1}}`, "invalid_text", "#/free/a%00"},
		"CombiningBomb":       {"{\"name\":\"e" + strings.Repeat("\u0301", 31) + "\"}", "invalid_text", "#/name"},
		"Deep":                {deep, "json_too_deep", ""},
		"DeepWithEscape":      {strings.Replace(deep, "1", `"\u00e9"`, 1), "json_too_deep", ""},
		"DeepLists":           {strings.Repeat("[", 100000), "json_too_deep", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var d document
			err := strictjson.Unmarshal([]byte(tc.body), &d)
			var e *errs.Error
			if !errors.As(err, &e) {
				t.Fatalf("Unmarshal(%.60q) = %v, want %s", tc.body, err, tc.code)
			}
			got, pointer := e.Code, ""
			if len(e.Fields) > 0 {
				got, pointer = e.Fields[0].Code, e.Fields[0].Pointer
			}
			if got != tc.code || pointer != tc.pointer {
				t.Errorf("Unmarshal(%.60q) says %s at %q, want %s at %q (%v)", tc.body, got, pointer, tc.code, tc.pointer, err)
			}
			if want := errs.Invalid; e.Code == "invalid_request" && e.Kind != want {
				t.Errorf("kind %v, want %v", e.Kind, want)
			}
		})
	}
}

// What names the place of a fault must not be as large as the body.
func TestPointersAreBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é ", 1<<20)
	for name, body := range map[string]string{
		"Unknown": `{"` + long + `":1}`, "Twice": `{"free":{"` + long + `":1,"` + long + `":2}}`, "Syntax": `{"free":{"` + long + `":x}}`, "Text": `{"free":{"` + long + `":"\u0000"}}`,
	} {
		var d document
		err := strictjson.Unmarshal([]byte(body), &d)
		e, ok := errors.AsType[*errs.Error](err)
		if !ok || len(e.Fields) != 1 || len(e.Fields[0].Pointer) > 4<<10 {
			t.Errorf("%s: %.200v", name, err)
		}
	}
}

func TestUnmarshalTakes(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"Empty":        `{}`,
		"SpaceAround":  " \r\n{\"name\" : \"x\"}\n\t ",
		"Everything":   `{"name":"x","amount":{"amount":78300,"currency":"USD"},"price":"0.00012","at":"2026-11-23T10:15:00Z","flag":false,"count":65535,"list":[{"id":"a"}],"free":{"k":["v",1]}}`,
		"NullPointers": `{"amount":null,"flag":null,"list":null}`,
		"LineFeed":     `{"name":"two\nlines\tand a tab"}`,
		"Astral":       `{"name":"\ud83d\ude00 😀"}`,
		"Deepest":      `{"free":` + strings.Repeat(`{"a":`, 31) + "1" + strings.Repeat("}", 32),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var d document
			if err := strictjson.Unmarshal([]byte(body), &d); err != nil {
				t.Fatalf("Unmarshal(%q): %v", body, err)
			}
		})
	}
}

func TestTextsComeOutInNormalForm(t *testing.T) {
	t.Parallel()
	var d document
	body := "{\"name\":\"Zoe\u0308 \\u0041\\u030a\",\"list\":[{\"id\":\"\\u006e\u0303\"}]}\n"
	if err := strictjson.Unmarshal([]byte(body), &d); err != nil {
		t.Fatal(err)
	}
	if d.Name != "Zo\u00eb \u00c5" || d.List[0].ID != "\u00f1" {
		t.Errorf("got %+q and %+q", d.Name, d.List[0].ID)
	}
}

// A text field of a page on Windows sends its lines so.
func TestLinesEndInALineFeed(t *testing.T) {
	t.Parallel()
	var d document
	if err := strictjson.Unmarshal([]byte(`{"name":"one\r\ntwo\nthree"}`), &d); err != nil || d.Name != "one\ntwo\nthree" {
		t.Errorf("got %q, %v", d.Name, err)
	}
	if err := strictjson.Unmarshal([]byte(`{"name":"one\rtwo"}`), &d); err == nil {
		t.Error("a carriage return alone is taken")
	}
}

func FuzzUnmarshal(f *testing.F) {
	for _, s := range []string{`{}`, `{"name":"x"}`, `[{"\ud800":1e400}]`, "{\"name\":\"e\u0301\"}", `{"free":{"":{"~/":[null,true]}}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var d document
		err := strictjson.Unmarshal(data, &d)
		if err == nil {
			return
		}
		switch errs.KindOf(err) {
		case errs.Malformed, errs.Invalid:
		default:
			t.Fatalf("Unmarshal(%q) = %v, neither malformed nor invalid", data, err)
		}
	})
}

var grammarOfTime = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// FuzzRFC3339: what is taken has the form of RFC 3339, and means what it says.
func FuzzRFC3339(f *testing.F) {
	for _, s := range []string{"2026-11-23T10:15:00Z", "2026-11-23T10:15:00.123456789+05:45", "2024-02-29T23:59:59-23:59", "2026-11-23T1:15:00Z", "2026-11-23T10:15:00,5Z", "2026-11-23T10:15:00+05:60"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		at, err := strictjson.RFC3339(s)
		if err != nil {
			return
		}
		if !grammarOfTime.MatchString(s) || !strings.HasPrefix(s, at.Format("2006-01-02T15:04:05")) {
			t.Errorf("%q is taken for %s", s, at)
		}
	})
}
