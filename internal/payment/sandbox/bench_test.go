package sandbox_test

import (
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// BenchmarkCharge charges over HTTP from 16 callers, each charge in the journal before it is answered.
func BenchmarkCharge(b *testing.B) {
	server, err := sandbox.New(sandbox.Config{Mode: payment.ModeTest, Dir: b.TempDir(), SecretKey: secretKey, Clock: clock.System})
	if err != nil {
		b.Fatal(err)
	}
	listener := httptest.NewServer(server)
	g, err := sandbox.NewClient(sandbox.ClientConfig{Mode: payment.ModeTest, BaseURL: listener.URL, SecretKey: secretKey})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		g.Close()
		listener.Close()
		_ = server.Close()
	})
	a, err := g.Attach(b.Context(), payment.AttachRequest{Key: "a", AccountRef: "acct_1", Token: sandbox.TokenVisa})
	if err != nil {
		b.Fatal(err)
	}
	var n atomic.Int64
	b.SetParallelism(8)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			ref := "pay_" + strconv.FormatInt(n.Add(1), 10)
			_, err := g.Charge(b.Context(), payment.ChargeRequest{
				Key: ref, Amount: usd(500), CustomerRef: a.CustomerRef, MethodRef: a.Method.Ref, AccountRef: "acct_1", PaymentRef: ref,
			})
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
}
