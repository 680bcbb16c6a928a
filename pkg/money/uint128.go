package money

import (
	"math/big"
	"math/bits"
)

// uint128 is an unsigned integer that never wraps: what does not fit is reported.
type uint128 struct{ hi, lo uint64 }

var powersOfTen = func() (p [20]uint64) { // 10^19 is the last that fits
	p[0] = 1
	for i := 1; i < len(p); i++ {
		p[i] = p[i-1] * 10
	}
	return p
}()

func (u uint128) isZero() bool { return u.hi|u.lo == 0 }

func (u uint128) cmp(v uint128) int {
	switch {
	case u.hi < v.hi || (u.hi == v.hi && u.lo < v.lo):
		return -1
	case u == v:
		return 0
	}
	return 1
}

func (u uint128) add(v uint128) (sum uint128, ok bool) {
	lo, carry := bits.Add64(u.lo, v.lo, 0)
	hi, carry := bits.Add64(u.hi, v.hi, carry)
	return uint128{hi, lo}, carry == 0
}

// sub returns u - v, which must not be negative.
func (u uint128) sub(v uint128) uint128 {
	lo, borrow := bits.Sub64(u.lo, v.lo, 0)
	hi, _ := bits.Sub64(u.hi, v.hi, borrow)
	return uint128{hi, lo}
}

func (u uint128) mul64(v uint64) (product uint128, ok bool) {
	carry, lo := bits.Mul64(u.lo, v)
	over, mid := bits.Mul64(u.hi, v)
	hi, c := bits.Add64(mid, carry, 0)
	return uint128{hi, lo}, over == 0 && c == 0
}

func (u uint128) mul(v uint128) (product uint128, ok bool) {
	switch {
	case v.hi == 0:
		return u.mul64(v.lo)
	case u.hi == 0:
		return v.mul64(u.lo)
	}
	return uint128{}, false
}

// quoRem divides by v, which must not be zero.
func (u uint128) quoRem(v uint128) (q, r uint128) {
	if v.hi == 0 {
		if u.hi < v.lo {
			q.lo, r.lo = bits.Div64(u.hi, u.lo, v.lo)
			return q, r
		}
		var rest uint64
		q.hi, rest = bits.Div64(0, u.hi, v.lo)
		q.lo, r.lo = bits.Div64(rest, u.lo, v.lo)
		return q, r
	}
	// Hacker's Delight, divlu: the quotient fits 64 bits, and the estimate is at most one too low.
	n := uint(bits.LeadingZeros64(v.hi))
	top := v.hi<<n | v.lo>>1>>(63-n)
	t, _ := bits.Div64(u.hi>>1, u.hi<<63|u.lo>>1, top)
	t >>= 63 - n
	if t != 0 {
		t--
	}
	q.lo = t
	p, _ := v.mul64(t)
	r = u.sub(p)
	if r.cmp(v) >= 0 {
		q, _ = q.add(uint128{lo: 1})
		r = r.sub(v)
	}
	return q, r
}

// gcd returns the greatest common divisor of u and v.
func (u uint128) gcd(v uint128) uint128 {
	for !v.isZero() {
		_, r := u.quoRem(v)
		u, v = v, r
	}
	return u
}

func (u uint128) big() *big.Int {
	n := new(big.Int).SetUint64(u.hi)
	return n.Lsh(n, 64).Or(n, new(big.Int).SetUint64(u.lo))
}

func uint128FromBig(n *big.Int) (uint128, bool) {
	if n.Sign() < 0 || n.BitLen() > 128 {
		return uint128{}, false
	}
	lo := new(big.Int).And(n, new(big.Int).SetUint64(1<<64-1))
	return uint128{new(big.Int).Rsh(n, 64).Uint64(), lo.Uint64()}, true
}

func abs64(n int64) uint64 {
	if n < 0 {
		return -uint64(n) //nolint:gosec // two's complement: right for the smallest int64 too
	}
	return uint64(n)
}
