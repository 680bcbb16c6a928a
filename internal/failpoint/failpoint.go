// Package failpoint lets a test end or hold the process at a named point of an operation.
//
// It owns: the names of the points, and what happens at them in a build with the tag "faults". In any
// other build Hit is an empty function, which the compiler removes with its call.
// It does not own: where the points stand (the operations say) or what must be true afterwards (the
// crash harness in internal/e2e).
package failpoint

// Op names an operation that has points.
type Op string

// The operations.
const (
	Upgrade       Op = "upgrade"
	CancelUpgrade Op = "cancel_upgrade"
	AddCard       Op = "add_card"
	RemoveCard    Op = "remove_card"
	TopUp         Op = "top_up"
	PayInvoice    Op = "pay_invoice"
	Refund        Op = "refund"
	Collect       Op = "collect"
	Close         Op = "close"
	Finalize      Op = "finalize"
)

// Point names how far an operation has come.
type Point string

// The points of an operation, in order. One that has no provider in it has no AfterGateway, and one
// transaction only.
const (
	Received        Point = "received"          // asked for, nothing written
	AfterTx1        Point = "after_tx1"         // the intent is committed, the provider not yet called
	AfterGateway    Point = "after_gateway"     // the provider has acted, its answer is not written
	Tx2BeforeCommit Point = "tx2_before_commit" // everything is written, nothing of it committed
	AfterTx2        Point = "after_tx2"         // committed, not yet answered
)

// Variable names the variable of the environment with the path of the control file. The file holds one
// line, "op.point action n", or nothing. The actions:
//
//	kill n   ends the process by SIGKILL at the n-th time that the point is reached
//	meet n   holds whoever reaches the point until n have, or nobody has come for a second, and then ends the process
//	panic n  panics at the n-th time
//	hold     holds whoever reaches the point until the line is gone
const Variable = "ACCRUE_FAILPOINT_FILE"
