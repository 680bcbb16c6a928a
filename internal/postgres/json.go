package postgres

import (
	"encoding/json"

	"github.com/accrue-billing/accrue/internal/payment"
)

// storedAction is a customer's next step as it is kept: without the client secret, which is sent once.
type storedAction struct {
	Type string `json:"type"`
	URL  string `json:"url,omitempty"`
}

func toStoredAction(a *payment.NextAction) *storedAction {
	if a == nil {
		return nil
	}
	return &storedAction{a.Type, a.URL}
}

func actionOf(b []byte) (*payment.NextAction, error) {
	s, err := jsonOf[storedAction](b)
	if s == nil || err != nil {
		return nil, err
	}
	return &payment.NextAction{Type: s.Type, URL: s.URL}, nil
}

// jsonOrNil is NULL for the nil pointer.
func jsonOrNil[T any](v *T) ([]byte, error) {
	if v == nil {
		return nil, nil
	}
	return json.Marshal(v)
}

// jsonOf is the nil pointer for NULL.
func jsonOf[T any](b []byte) (*T, error) {
	if b == nil {
		return nil, nil //nolint:nilnil // NULL is the database's nil
	}
	v := new(T)
	return v, json.Unmarshal(b, v)
}

// pendingStatuses are those of payment.Status.Pending.
var pendingStatuses = []string{string(payment.Processing), string(payment.RequiresAction)}

// isPending is true of records with one of them. It is the condition of the indexes on what is pending, word
// for word: with parameters instead, PostgreSQL would have to plan the query each time to see that it may use them.
const isPending = "status IN ('processing', 'requires_action')"
