package billing_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/pkg/money"
)

// The operations on one balance. Those of usage and those of funds share no state, so they are judged apart.
type action string

const (
	useSeconds action = "use" // spend: refused where it would pass the spend limit
	readUsed   action = "read used"
	topUp      action = "top up"
	refund     action = "refund"
	readFunds  action = "read funds"
)

type balanceInput struct {
	what   action
	amount int64 // seconds or cents
}

type balanceOutput struct {
	done  bool
	value int64 // of a read
}

const (
	allowance  = 60_000 // seconds of voice that cost nothing
	spendLimit = 1_000  // cents
)

// cost is the price list's, by hand: 2.7 cents a minute beyond the allowance, rounded half away from zero.
func cost(seconds int64) int64 {
	billable := max(0, seconds-allowance)
	return (billable*27 + 300) / 600
}

// balanceModel says what one balance may answer if operations happen one after the other.
var balanceModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := make([][]porcupine.Operation, 2)
		for _, op := range history {
			switch op.Input.(balanceInput).what {
			case useSeconds, readUsed:
				parts[0] = append(parts[0], op)
			default:
				parts[1] = append(parts[1], op)
			}
		}
		return parts
	},
	Init: func() any { return int64(0) },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(int64), input.(balanceInput), output.(balanceOutput)
		switch in.what {
		case useSeconds:
			if fits := cost(s+in.amount) <= spendLimit; fits != out.done {
				return false, s
			}
			if out.done {
				s += in.amount
			}
		case topUp:
			if out.done { // else another was pending: nothing happened
				s += in.amount
			}
		case refund:
			if out.done && in.amount > s {
				return false, s
			}
			if out.done {
				s -= in.amount
			}
		case readUsed, readFunds:
			return s == out.value, s
		}
		return true, s
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%v -> %v", input, output) },
}

// Whatever the interleaving, the answers are those of some order of the operations, one at a time: no
// spend passes the limit, no top-up is lost, and a read sees everything that was answered before it.
func TestBalance_IsLinearizable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	limiter, limit := billing.Limiter{Core: w.Core}, usd(spendLimit)
	held, err := limiter.Get(t.Context(), a)
	if err == nil {
		_, err = limiter.Set(t.Context(), asked(a, ""), billing.SpendLimit{Amount: &limit, Mode: entitlement.Hard, Version: held.Version})
	}
	if err != nil {
		t.Fatal(err)
	}
	c := &balanceClient{world: w, account: a}

	const clients = 16
	each := often(30, 250) // 4,000 in all
	began := time.Now()
	var mu sync.Mutex
	var history []porcupine.Operation
	together(clients, func(n int) {
		rng := rand.New(rand.NewPCG(2026, uint64(n)))
		for range each {
			in := c.pick(rng)
			call := time.Since(began).Nanoseconds()
			out, err := c.do(t, in, rng)
			if err != nil {
				t.Errorf("%v: %v", in, err)
				return
			}
			op := porcupine.Operation{ClientId: n, Input: in, Output: out, Call: call, Return: time.Since(began).Nanoseconds()}
			mu.Lock()
			history = append(history, op)
			mu.Unlock()
		}
	})
	refused := 0
	for _, op := range history {
		if in := op.Input.(balanceInput); in.what == useSeconds && !op.Output.(balanceOutput).done {
			refused++
		}
	}
	if refused == 0 {
		t.Error("the limit was never reached: the test shows nothing")
	}
	if res := porcupine.CheckOperationsTimeout(balanceModel, history, time.Minute); res != porcupine.Ok {
		t.Errorf("%d operations: %s", len(history), res)
	}
}

// A model that takes anything would show nothing: one wrong answer must be seen.
func TestBalance_AWrongAnswerIsSeen(t *testing.T) {
	t.Parallel()
	one := func(call int64, in balanceInput, out balanceOutput) porcupine.Operation {
		return porcupine.Operation{Input: in, Output: out, Call: call, Return: call + 1}
	}
	right := []porcupine.Operation{
		one(0, balanceInput{topUp, 500}, balanceOutput{done: true}),
		one(2, balanceInput{refund, 200}, balanceOutput{done: true}),
		one(4, balanceInput{readFunds, 0}, balanceOutput{value: 300}),
		one(6, balanceInput{useSeconds, 70_000}, balanceOutput{done: true}),
		one(8, balanceInput{readUsed, 0}, balanceOutput{value: 70_000}),
		one(10, balanceInput{useSeconds, 20_000}, balanceOutput{}),
	}
	if !porcupine.CheckOperations(balanceModel, right) {
		t.Fatal("a right history is refused")
	}
	for name, change := range map[string]porcupine.Operation{
		"StaleRead":        one(4, balanceInput{readFunds, 0}, balanceOutput{value: 500}),
		"RefundPastFunds":  one(2, balanceInput{refund, 600}, balanceOutput{done: true}),
		"LostUse":          one(8, balanceInput{readUsed, 0}, balanceOutput{}),
		"SpendPastLimit":   one(10, balanceInput{useSeconds, 20_000}, balanceOutput{done: true}),
		"RefusedWithinIt":  one(10, balanceInput{useSeconds, 1_000}, balanceOutput{}),
		"TopUpCountsTwice": one(4, balanceInput{readFunds, 0}, balanceOutput{value: 800}),
	} {
		history := append([]porcupine.Operation(nil), right...)
		for i := range history {
			if history[i].Call == change.Call {
				history[i] = change
			}
		}
		if porcupine.CheckOperations(balanceModel, history) {
			t.Errorf("%s was not seen", name)
		}
	}
}

// balanceClient does the operations.
type balanceClient struct {
	*world
	account account.ID

	paid sync.Map // payment.ID of top-ups that succeeded
}

// pick chooses what to do next: usage is frequent and small, money is rare, reads are between.
func (c *balanceClient) pick(rng *rand.Rand) balanceInput {
	switch n := rng.IntN(20); {
	case n < 9:
		return balanceInput{useSeconds, 1 + rng.Int64N(1200)}
	case n < 13:
		return balanceInput{readUsed, 0}
	case n < 15:
		return balanceInput{topUp, 500 + rng.Int64N(1000)}
	case n < 16:
		return balanceInput{refund, 1 + rng.Int64N(400)}
	default:
		return balanceInput{readFunds, 0}
	}
}

func (c *balanceClient) do(t *testing.T, in balanceInput, rng *rand.Rand) (out balanceOutput, err error) {
	switch in.what {
	case useSeconds:
		res, err := c.ingest.Add(t.Context(), []metering.Event{{
			Account: c.account, Source: "test", ID: newKey(), Meter: "voice", Quantity: money.DecimalFromInt(in.amount), OccurredAt: c.clock(),
		}})
		if err != nil {
			return out, err
		}
		if res[0].Status != metering.Accepted && (res[0].Problem == nil || res[0].Problem.Code != string(entitlement.SpendLimitReached)) {
			return out, fmt.Errorf("%+v", res[0])
		}
		out.done = res[0].Status == metering.Accepted
	case readUsed:
		sub, err := c.DB.Subscriptions().Active(t.Context(), c.account)
		if err != nil {
			return out, err
		}
		totals, err := c.DB.Usage().Totals(t.Context(), c.account, sub.Period.Start, false)
		if err != nil {
			return out, err
		}
		for _, total := range totals {
			if total.Meter == "voice" {
				out.value, err = strconv.ParseInt(total.Quantity.String(), 10, 64)
			}
		}
		return out, err
	case readFunds:
		b, err := billing.Reader{Core: c.Core}.Balance(t.Context(), c.account)
		if err != nil {
			return out, err
		}
		out.value = b.Funds.Minor
	case topUp:
		got, err := billing.Funder{Core: c.Core}.TopUp(t.Context(), asked(c.account, newKey()), billing.TopUpInput{Amount: usd(in.amount)}, nil)
		if errors.Is(err, payment.ErrTopUpPending) {
			return out, nil
		}
		if err != nil || got.Record.Status != payment.Succeeded {
			return out, fmt.Errorf("%+v: %w", got.Record, err)
		}
		c.paid.Store(got.Record.Charge.ID, true)
		out.done = true
	case refund:
		var p payment.ID
		c.paid.Range(func(k, _ any) bool { p = k.(payment.ID); return rng.IntN(3) > 0 })
		if p.IsZero() {
			return out, nil
		}
		got, err := billing.Refunder{Core: c.Core}.Refund(t.Context(), asked(c.account, newKey()),
			billing.RefundInput{Payment: p, Amount: usd(in.amount), Reason: "test", Origin: payment.ByOperator}, nil)
		if errors.Is(err, payment.ErrRefundTooLarge) {
			return out, nil
		}
		if err != nil || got.Record.Status != payment.Succeeded {
			return out, fmt.Errorf("%+v: %w", got.Record, err)
		}
		out.done = true
	}
	return out, nil
}
