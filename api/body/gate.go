package body

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/accrue-billing/accrue/internal/errs"
)

// Small is the size in bytes up to which a body is taken in at once. Whoever sends less than that never waits
// for those who send more.
const Small = 256 << 10

// patience bounds how long a large body waits for room, and how long it may then take to come.
const patience = 10 * time.Second

// ErrBusy says that large bodies take all the room there is for them.
var ErrBusy = errs.New(errs.Unavailable, "large_bodies_busy",
	"As many large requests are being read as there is memory for. Send the request again, or in smaller parts.").After(time.Second)

// ErrSlow says that a large body, once it had its turn, took too long to come.
var ErrSlow = errs.New(errs.Malformed, "body_too_slow", "The body did not come in time. Send it compressed, or in smaller parts.")

// Gate bounds the memory of large bodies: those that are being worked on at one time have at most so many
// bytes, and the others wait in line, unread. What a body becomes once it is decoded is several times its
// size, so a place in the room is kept until the request is answered. It is safe for concurrent use.
type Gate struct {
	room     *semaphore.Weighted
	size     int64
	patience time.Duration
}

// NewGate returns a gate with room for so many bytes of large bodies, decompressed. A body that is larger
// than the room has it for itself.
func NewGate(size int64) *Gate {
	return &Gate{room: semaphore.NewWeighted(size), size: size, patience: patience}
}

// WithPatience returns a gate with as much room of its own that waits and lets send for so long.
func (g *Gate) WithPatience(d time.Duration) *Gate {
	return &Gate{room: semaphore.NewWeighted(g.size), size: g.size, patience: d}
}

// Read is the function Read for one of many requests: of a body that is or becomes a large one, it reads the
// rest when there is room for it. Call done once nothing of the body or of what was made of it is used any
// more; it is never nil. Read returns ErrBusy where there was no room in time, and ErrSlow where the body
// then did not come in time: a sender who waits must not keep the others waiting.
func (g *Gate) Read(w http.ResponseWriter, req *http.Request, limit int64) (data []byte, done func(), err error) {
	var held int64
	var slow atomic.Bool
	stop := func() bool { return true }
	data, err = read(req, limit, func(size int64) error {
		ctx, cancel := context.WithTimeout(req.Context(), g.patience)
		defer cancel()
		size = min(size, g.size)
		if err := g.room.Acquire(ctx, size); err != nil {
			return ErrBusy.Because(err)
		}
		held = size
		stop = time.AfterFunc(g.patience, func() {
			slow.Store(true)
			_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) // in the past: reads end now
		}).Stop
		return nil
	})
	if !stop() && err != nil && slow.Load() {
		err = ErrSlow.Because(err)
	}
	if left := min(held, int64(len(data))); left < held { // it unfolded to less than it might have, or was refused
		g.room.Release(held - left)
		held = left
	}
	return data, func() { g.room.Release(held) }, err
}
