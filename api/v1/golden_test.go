package v1_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares an answer with testdata/<name>.golden.json, member by member and in their order, so
// that nothing appears in an answer that nobody decided on.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, bytes.TrimSpace(got), "", "  "); err != nil {
		t.Fatalf("not JSON: %v: %s", err, got)
	}
	pretty.WriteByte('\n')
	file := filepath.Join("testdata", name+".golden.json")
	if *update {
		if err := os.WriteFile(file, pretty.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; run go test ./api/v1 -update", err)
	}
	if !bytes.Equal(pretty.Bytes(), want) {
		t.Errorf("%s differs; if that is meant, run go test ./api/v1 -update\ngot:\n%s", file, pretty.Bytes())
	}
}
