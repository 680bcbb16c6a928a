package money

import (
	"errors"
	"fmt"
	"math/bits"
)

// ErrWeights says that an amount cannot be divided by the given weights.
var ErrWeights = errors.New("weights must not be negative, and not all 0")

// Allocate divides an amount in proportion to weights, by largest remainder: each share is rounded
// towards zero, and the units left over go one each to the shares that lost most, the earlier of
// equals first. The shares sum to the amount, always; Allocate(-a) is -Allocate(a); a share with
// weight 0 is 0. It fails with ErrWeights, and with ErrOverflow where the weights sum past 2^63.
func Allocate(a Amount, weights ...int64) ([]Amount, error) {
	var sum uint64
	for _, w := range weights {
		if w < 0 {
			return nil, fmt.Errorf("%w: %d", ErrWeights, w)
		}
		if sum += uint64(w); sum > 1<<63-1 {
			return nil, fmt.Errorf("%w: the weights sum past 2^63", ErrOverflow)
		}
	}
	if sum == 0 {
		return nil, ErrWeights
	}
	size := abs64(a.Minor)
	shares := make([]Amount, len(weights))
	lost := make([]uint128, len(weights))
	left := size
	for i, w := range weights {
		hi, lo := bits.Mul64(size, uint64(w))    //nolint:gosec // not negative
		q, r := bits.Div64(hi, lo, sum)          // w ≤ sum, so q ≤ size fits
		shares[i] = Amount{int64(q), a.Currency} //nolint:gosec // q ≤ |a|
		lost[i] = uint128{lo: r}
		left -= q
	}
	handOut(shares, lost, left)
	if a.Minor < 0 {
		for i := range shares {
			shares[i].Minor = -shares[i].Minor
		}
	}
	return shares, nil
}

// handOut gives one unit to each of the n shares that lost most.
func handOut(shares []Amount, lost []uint128, n uint64) {
	for ; n > 0; n-- {
		most := -1
		for i := range lost {
			if !lost[i].isZero() && (most < 0 || lost[i].cmp(lost[most]) > 0) {
				most = i
			}
		}
		if most < 0 { // cannot be: what is left over was lost by someone
			most = 0
		}
		shares[most].Minor++
		lost[most] = uint128{}
	}
}

// Split divides an amount into n shares that differ by at most one minor unit, larger ones first.
func Split(a Amount, n int) ([]Amount, error) {
	if n < 1 {
		return nil, ErrWeights
	}
	weights := make([]int64, n)
	for i := range weights {
		weights[i] = 1
	}
	return Allocate(a, weights...)
}
