package middleware

import (
	"fmt"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
)

// ErrRateLimited says that a quota is used up.
var ErrRateLimited = errs.New(errs.RateLimited, "rate_limited", "There were too many requests; wait as long as Retry-After says.")

// limit takes one request from the caller's quota of the route's class and says in RateLimit-Policy
// and RateLimit (draft-ietf-httpapi-ratelimit-headers-10) what is left. The caller is the account for
// users and keys, whoever acts for it, and the address where nobody is named.
func (ch *Chain) limit(r route.Route) echo.MiddlewareFunc {
	l, ok := ch.cfg.Limits[r.Class]
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		if !ok || l.Quota <= 0 {
			return next
		}
		policy := []string{fmt.Sprintf(`"%s";q=%d;w=%d`, r.Class, l.Quota, seconds(l.Window))}
		return func(c echo.Context) error {
			left, wait := ch.limiter.take(r.Class, caller(c), ch.now(c))
			h, said := c.Response().Header(), &callOf(c).rateLimit
			h["Ratelimit"] = said[:]
			h["Ratelimit-Policy"] = policy
			t := seconds(wait)
			if left < 0 {
				// Callers who were refused together should not come back together.
				t += rand.IntN(1 + t/4) //nolint:gosec // spreads load; nothing depends on it
				said[0] = state(r.Class, 0, t)
				return ErrRateLimited.With("violated-policies", []string{string(r.Class)}).After(time.Duration(t) * time.Second)
			}
			said[0] = state(r.Class, left, t)
			return next(c)
		}
	}
}

func seconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }

// state writes the RateLimit header: what is left, and in how many seconds the quota is whole again.
func state(class route.Class, left, t int) string {
	b := make([]byte, 0, 48)
	b = append(append(append(b, '"'), class...), `";r=`...)
	b = append(strconv.AppendInt(b, int64(left), 10), ";t="...)
	return string(strconv.AppendInt(b, int64(t), 10))
}

// who is counted: an account, or whoever it is that acts for none.
type who struct {
	account account.ID
	name    string
}

func caller(c echo.Context) who {
	p, ok := principal(c)
	switch {
	case !ok:
		return who{name: "ip:" + network(c.RealIP())}
	case p.ActsForAny(): // an operator must not use up the quota of the account being helped
		return who{name: "p:" + p.Subject}
	}
	return who{account: AccountIfAny(c)}
}

// network returns whom an address is counted as: of IPv6 everybody has 2^64 addresses or more, which differ behind the
// first 64 bits.
func network(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Unmap().Is4() {
		return address
	}
	return netip.PrefixFrom(ip, 64).Masked().String()
}

// limiter counts requests by the generic cell rate algorithm: a quota of q in a window w lets q
// through at once and one more every w/q. It costs one time stamp per caller and has no window edge at
// which twice the quota could pass. It counts per process: n replicas let n quotas pass, which protects the
// service as well and asks nobody for each request.
type limiter struct {
	limits map[route.Class]Limit
	seed   maphash.Seed
	shards [64]shard
}

type shard struct {
	mu  sync.Mutex
	tat map[bucket]time.Time // theoretical arrival time: when the caller's quota is whole again
}

type bucket struct {
	class route.Class
	who   who
}

// maxBuckets bounds the memory of one shard. Beyond it, whoever has a whole quota is forgotten.
const maxBuckets = 4096

func newLimiter(limits map[route.Class]Limit) *limiter {
	l := &limiter{limits: limits, seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].tat = map[bucket]time.Time{}
	}
	return l
}

// take uses one unit. left is what remains, and -1 if there was none; wait is the time until the
// quota is whole again, or, if there was none, until the next unit.
func (l *limiter) take(class route.Class, by who, now time.Time) (left int, wait time.Duration) {
	limit := l.limits[class]
	if limit.Quota <= 0 {
		return math.MaxInt32, 0
	}
	b := bucket{class, by}
	s := &l.shards[maphash.Comparable(l.seed, b)%uint64(len(l.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	tat := s.tat[b]
	if tat.Before(now) {
		tat = now
	}
	each := limit.Window / time.Duration(limit.Quota)
	tat = tat.Add(each)
	if over := tat.Sub(now) - limit.Window; over > 0 {
		return -1, over
	}
	if len(s.tat) >= maxBuckets {
		for k, t := range s.tat {
			if t.Before(now) {
				delete(s.tat, k)
			}
		}
		if len(s.tat) >= maxBuckets { // all of them are busy: forgetting some errs on the side of serving
			clear(s.tat)
		}
	}
	s.tat[b] = tat
	return int((limit.Window - tat.Sub(now)) / each), tat.Sub(now)
}
