package v1

import "testing"

func TestIDOf(t *testing.T) {
	t.Parallel()

	for body, want := range map[string]string{
		`{"id":"rsv_1","meter":"voice"}`: "rsv_1",
		`{"meter":"voice","id":"rsv_1"}`: "rsv_1",
		`{"id":"a\"b"}`:                  `a"b`,
		`{"id":""}`:                      "",
		`{"meter":{"id":"voice"}}`:       "",
		`[]`:                             "",
	} {
		if got := idOf([]byte(body)); got != want {
			t.Errorf("%s: %q", body, got)
		}
	}
}
