package metering

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
)

// aside is what belongs to accounts that somebody else holds for long: a machine that has died within a transaction, or
// the making of a large invoice. It is stored beside the flushes, so that nobody waits but those who ask for such an account.
type aside struct {
	mu      sync.Mutex
	chunks  map[account.ID][]chunk // in the order in which they came; an account is here while somebody looks after it
	items   int
	storing sync.WaitGroup
}

// How often one looks whether an account is free again.
const (
	asideFirst = 10 * time.Millisecond
	asideMost  = 250 * time.Millisecond
)

// setAside takes out of the chunks what belongs to accounts that are held, and returns the rest of each.
func (in *Ingester) setAside(ctx context.Context, chunks []chunk, held map[account.ID]bool) []chunk {
	s := &in.aside
	s.mu.Lock()
	defer s.mu.Unlock()
	if held == nil { // those that are known to be
		if len(s.chunks) == 0 {
			return chunks
		}
		held = make(map[account.ID]bool, len(s.chunks))
		for a := range s.chunks {
			held[a] = true
		}
	}
	rest := make([]chunk, len(chunks))
	for i, c := range chunks {
		rest[i].call = c.call
		parts := map[account.ID][]item{}
		for _, it := range c.items {
			if a := it.event.Account; held[a] {
				parts[a] = append(parts[a], it)
			} else {
				rest[i].items = append(rest[i].items, it)
			}
		}
		for a, items := range parts {
			if s.items+len(items) > in.opt.QueueSize {
				c.call.fail(ErrBusy)
				continue
			}
			c.call.pending.Add(1)
			s.items += len(items)
			if s.chunks[a] == nil {
				if s.chunks == nil {
					s.chunks = map[account.ID][]chunk{}
				}
				s.storing.Go(func() { in.storeAside(ctx, a) })
			}
			s.chunks[a] = append(s.chunks[a], chunk{items, c.call})
		}
	}
	return rest
}

// storeAside stores what is set aside of an account once nobody else holds it. Under load more comes while it stores, for as
// long as that lasts: patience is for the next who holds the account, and begins anew with what is stored.
func (in *Ingester) storeAside(ctx context.Context, a account.ID) {
	for more := true; more; {
		patient, cancel := context.WithTimeout(ctx, in.opt.Patience)
		more = in.storeNextAside(patient, a)
		cancel()
	}
}

// storeNextAside stores what goes into one transaction, and sends away what ctx does not last for. It reports whether it
// has stored anything: otherwise there is no more.
func (in *Ingester) storeNextAside(ctx context.Context, a account.ID) bool {
	pause := asideFirst
	for {
		chunks := in.nextAside(a)
		if chunks == nil {
			return false
		}
		held, err := in.commit(ctx, itemsOf(chunks), true)
		if len(held) > 0 {
			select {
			case <-ctx.Done():
				err = ErrHeld
			case <-time.After(pause):
				pause = min(2*pause, asideMost)
				continue
			}
		}
		in.aside.mu.Lock()
		in.aside.chunks[a] = in.aside.chunks[a][len(chunks):]
		for _, c := range chunks {
			in.aside.items -= len(c.items)
		}
		in.aside.mu.Unlock()
		answer(chunks, err)
		if err == nil {
			return true
		}
	}
}

// nextAside returns what of an account's goes into one transaction, or nil when there is no more.
func (in *Ingester) nextAside(a account.ID) []chunk {
	s := &in.aside
	s.mu.Lock()
	defer s.mu.Unlock()
	all, n, k := s.chunks[a], 0, 0
	for k < len(all) && (k == 0 || n+len(all[k].items) <= in.opt.FlushSize) {
		n += len(all[k].items)
		k++
	}
	if k == 0 {
		delete(s.chunks, a)
		return nil
	}
	return slices.Clone(all[:k])
}

// free returns the items of accounts that are not held.
func free(items []item, held map[account.ID]bool) []item {
	if len(held) == 0 {
		return items
	}
	return slices.DeleteFunc(slices.Clone(items), func(it item) bool { return held[it.event.Account] })
}

// both are the accounts of two halves.
func both(a, b map[account.ID]bool) map[account.ID]bool {
	if a == nil {
		return b
	}
	maps.Copy(a, b)
	return a
}
