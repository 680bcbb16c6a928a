// Package internal_test holds the law on who may import whom.
package internal_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "github.com/accrue-billing/accrue"

// floors is the house from the ground up: a package may import only packages on floors below its own.
// A new package must be given a place here. Put it on the lowest floor that its imports allow; if it
// needs a package on its own floor or above, the rule that it needs is in the wrong room.
var floors = []struct{ name, rooms string }{
	{"vocabulary", `pkg/money migrations docs internal/errs internal/id internal/clock internal/page internal/period
		internal/secret internal/cardguard internal/trace internal/coalesce internal/failpoint internal/spreadsheet`},
	{"ground", `internal/account internal/plan internal/dunning internal/runway internal/telemetry
		internal/postgres/embedded api/problem api/body api/validate api/apitest`},
	{"concepts", `internal/auth internal/ledger internal/job internal/outbox internal/idempotency
		internal/entitlement internal/subscription internal/pricing internal/wallet internal/alert internal/inquiry
		internal/changes api/strictjson api/cursor`},
	{"concepts on concepts", "internal/metering internal/invoice internal/importer api/route"},
	{"documents and payments", "internal/payment api/middleware api/openapi"},
	{"what money follows", `internal/books internal/upgrade internal/auth/authtest internal/payment/stripe
		internal/payment/sandbox internal/payment/gatewaytest`},
	{"operations", "internal/billing"},
	{"invariants", "internal/invariant"},
	{"technology and edges", "internal/postgres internal/worker internal/demo api/v1"},
	{"edge", "api internal/postgres/postgrestest internal/invariant/invarianttest"},
	{"roof", "internal/app"},
	{"above the roof", "internal/e2e"},
	{"programs", "cmd/accrue internal/testreport internal/benchreport api/problem/internal/codes api/openapi/internal/generate"},
}

// onlyIn names the one home of each technology, and of the rooms that only the roof may enter. An
// entry that ends in "/..." stands for everything below it.
var onlyIn = map[string]string{
	"gorm.io/":                           "internal/postgres",
	"github.com/jackc/pgx":               "internal/postgres internal/postgres/... internal/worker",
	"database/sql":                       "internal/postgres",
	"github.com/pressly/goose":           "internal/postgres",
	"github.com/riverqueue/":             "internal/postgres internal/worker",
	"github.com/labstack/":               "api api/... internal/app",
	"github.com/swaggo/":                 "api api/... docs",
	"github.com/stripe/":                 "internal/payment/stripe",
	"github.com/golang-jwt/":             "internal/auth internal/auth/authtest",
	"github.com/MicahParks/":             "internal/auth internal/auth/authtest",
	"github.com/alecthomas/kong":         "internal/app cmd/accrue",
	"github.com/prometheus/":             "internal/telemetry",
	"os/exec":                            "internal/postgres/embedded",
	"testing":                            "api/apitest internal/postgres/postgrestest internal/payment/gatewaytest internal/auth/authtest internal/invariant/invarianttest",
	module + "/internal/postgres":        "internal/postgres/... internal/app internal/e2e",
	module + "/internal/payment/stripe":  "internal/app",
	module + "/internal/payment/sandbox": "internal/app internal/demo internal/e2e",
	module + "/internal/worker":          "internal/app internal/demo internal/e2e",
	module + "/internal/app":             "cmd/accrue internal/e2e",
}

// never names what a room does without, whatever floor it is on.
var never = map[string]string{
	"internal/errs":    "net/http",
	"internal/pricing": "context net/http " + module + "/internal/clock",
	"internal/books":   "context net/http",
	"internal/billing": "net/http",
}

func TestImports(t *testing.T) {
	t.Parallel()
	faults, packages := imports(t, os.DirFS(".."))
	for _, f := range faults {
		t.Error(f)
	}
	if packages < 10 {
		t.Errorf("only %d packages were found: the test does not look at the module", packages)
	}
	for _, f := range floors {
		for room := range strings.FieldsSeq(f.rooms) {
			if _, err := os.Stat("../" + room); err != nil {
				t.Errorf("%s has a place in the house, and is not there", room)
			}
		}
	}
}

// A law that nothing can break is no law: each case plants one bad import.
func TestImports_PlantedFaultsAreSeen(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, imports, want string }{
		"Upward":           {"internal/account/x.go", module + "/internal/billing", "internal/account (floor ground) imports internal/billing (floor operations)"},
		"Sideways":         {"internal/ledger/x.go", module + "/internal/wallet", "internal/ledger"},
		"UnknownRoom":      {"internal/helpers/x.go", "fmt", "internal/helpers has no place in the house"},
		"GORMInAConcept":   {"internal/plan/x.go", "gorm.io/gorm", "gorm.io/gorm"},
		"EchoBelowTheEdge": {"internal/billing/x.go", "github.com/labstack/echo/v4", "labstack"},
		"StripeInPayment":  {"internal/payment/x.go", "github.com/stripe/stripe-go/v85", "stripe"},
		"RiverInBilling":   {"internal/billing/x.go", "github.com/riverqueue/river", "river"},
		"JWTAtTheEdge":     {"api/middleware/x.go", "github.com/golang-jwt/jwt/v5", "jwt"},
		"PgxInMetering":    {"internal/metering/x.go", "github.com/jackc/pgx/v5", "pgx"},
		"StorageAtTheEdge": {"api/x.go", module + "/internal/postgres", "internal/postgres"},
		"TestingOutside":   {"internal/app/x.go", "testing", "testing"},
		"ContextInPricing": {"internal/pricing/x.go", "context", "never"},
		"InternalInPkg":    {"pkg/money/x.go", module + "/internal/errs", "which is internal"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src := fmt.Sprintf("package x\n\nimport _ %q\n", c.imports)
			faults, _ := imports(t, fstest.MapFS{c.file: {Data: []byte(src)}})
			if len(faults) != 1 && name != "StorageAtTheEdge" || len(faults) == 0 || !strings.Contains(faults[0], c.want) {
				t.Fatalf("saw %q", faults)
			}
		})
	}
	t.Run("TestsMayImportTheirTools", func(t *testing.T) {
		t.Parallel()
		src := "package x\n\nimport _ \"testing\"\nimport _ \"" + module + "/internal/postgres/postgrestest\"\n"
		if faults, _ := imports(t, fstest.MapFS{"internal/ledger/x_test.go": {Data: []byte(src)}}); len(faults) > 0 {
			t.Fatalf("saw %q", faults)
		}
	})
}

// imports reads every Go file and returns what breaks the law. It parses in this process rather than
// asking `go list`: the test cache sees the files that are read here, and would not see those.
func imports(t *testing.T, house fs.FS) (faults []string, packages int) {
	t.Helper()
	floorOf, floorName := map[string]int{}, map[string]string{}
	for n, f := range floors {
		for room := range strings.FieldsSeq(f.rooms) {
			if _, twice := floorOf[room]; twice {
				t.Errorf("%s is on two floors", room)
			}
			floorOf[room], floorName[room] = n, f.name
		}
	}
	seen := map[string]bool{}
	err := fs.WalkDir(house, ".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && file != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules"):
			return fs.SkipDir
		case d.IsDir() || path.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go"):
			return nil
		}
		src, err := fs.ReadFile(house, file)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, src, parser.ImportsOnly)
		if err != nil {
			return err
		}
		room := path.Dir(file)
		if _, known := floorOf[room]; !known && !seen[room] {
			faults = append(faults, room+" has no place in the house: add it to floors in internal/arch_test.go, on the lowest floor that its imports allow")
		}
		seen[room] = true
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			faults = append(faults, judge(file, room, imported, floorOf, floorName)...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(faults)
	return slices.Compact(faults), len(seen)
}

func judge(file, room, imported string, floorOf map[string]int, floorName map[string]string) (faults []string) {
	if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
		mine, known := floorOf[room]
		theirs, placed := floorOf[ours]
		if strings.HasPrefix(room, "pkg/") && strings.HasPrefix(ours, "internal/") {
			faults = append(faults, fmt.Sprintf("%s: %s is for others to import and cannot import %s, which is internal", file, room, ours))
		} else if known && placed && theirs >= mine {
			faults = append(faults, fmt.Sprintf("%s: %s (floor %s) imports %s (floor %s), which is not below it", file, room, floorName[room], ours, floorName[ours]))
		}
	}
	for what, homes := range onlyIn {
		// A module is named with what is below it; a package of ours or of the standard library by itself.
		whole := strings.Contains(what, ".") && !strings.HasPrefix(what, module)
		below := whole && strings.HasPrefix(imported, strings.TrimSuffix(what, "/")+"/")
		if imported != what && !below {
			continue
		}
		if !slices.ContainsFunc(strings.Fields(homes), func(home string) bool {
			below, all := strings.CutSuffix(home, "...")
			return room == home || all && strings.HasPrefix(room, below)
		}) {
			faults = append(faults, fmt.Sprintf("%s: %s may be imported only in %s", file, imported, homes))
		}
	}
	if slices.Contains(strings.Fields(never[room]), imported) {
		faults = append(faults, fmt.Sprintf("%s: %s never imports %s", file, room, imported))
	}
	return faults
}
