package payment_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/pkg/money"
)

// The whole life of a payment: what is not listed cannot be.
func TestBecome(t *testing.T) {
	t.Parallel()
	all := []payment.Status{payment.Processing, payment.RequiresAction, payment.Succeeded, payment.Failed, payment.Canceled, payment.Parked}
	may := map[payment.Status]string{
		payment.Processing:     "requires_action succeeded failed canceled parked",
		payment.RequiresAction: "processing succeeded failed canceled parked",
		payment.Parked:         "succeeded failed canceled",
		payment.Succeeded:      "",
		payment.Failed:         "succeeded",
		payment.Canceled:       "succeeded",
	}
	now := time.Date(2026, 3, 10, 9, 0, 0, 0, time.UTC)
	for _, from := range all {
		for _, to := range all {
			t.Run(string(from)+"_"+string(to), func(t *testing.T) {
				t.Parallel()
				before := payment.Payment{
					Status: from, NextAction: &payment.NextAction{Type: payment.ActionRedirect}, Failure: &payment.Failure{Code: "declined"},
					CheckAt: now.Add(time.Minute),
				}
				after := before
				err := after.Become(to, now)
				if !strings.Contains(" "+may[from]+" ", " "+string(to)+" ") {
					if !errors.Is(err, payment.ErrSettled) || !reflect.DeepEqual(after, before) {
						t.Errorf("%v, and it is %+v; want ErrSettled and nothing changed", err, after)
					}
					return
				}
				if err != nil || after.Status != to || !after.UpdatedAt.Equal(now) {
					t.Fatalf("%+v, %v", after, err)
				}
				open := to == payment.Processing || to == payment.RequiresAction
				if (after.NextAction != nil) != open || !after.CheckAt.IsZero() != open {
					t.Errorf("next action %+v, looked up at %s", after.NextAction, after.CheckAt)
				}
				if succeeded := to == payment.Succeeded; after.SucceededAt.Equal(now) != succeeded || (after.Failure == nil) != succeeded {
					t.Errorf("succeeded at %s, failure %+v", after.SucceededAt, after.Failure)
				}
			})
		}
	}
}

// Only what was paid can be given back, and once.
func TestRefundable(t *testing.T) {
	t.Parallel()
	p := payment.Payment{Amount: money.New(1000, money.USD), Refunded: money.New(300, money.USD), Disputed: money.New(200, money.USD)}
	for _, s := range []payment.Status{payment.Processing, payment.RequiresAction, payment.Failed, payment.Canceled, payment.Parked} {
		if p.Status = s; p.Refundable() != money.Zero(money.USD) {
			t.Errorf("of a payment that is %s: %s", s, p.Refundable())
		}
	}
	if p.Status = payment.Succeeded; p.Refundable() != money.New(500, money.USD) {
		t.Errorf("%s, want 5.00 USD", p.Refundable())
	}
}
