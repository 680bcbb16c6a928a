package app

import (
	"os"
	"runtime/debug"
)

// limitMemory has the runtime collect garbage seldom while there is little of it, and as often as it takes
// once the process's memory nears the limit in MiB. The limit is soft: what is in use is kept above it, too.
// GOGC and GOMEMLIMIT in the environment, where they are set, have the last word.
//
// Heaps here are small and short-lived, so that Go's own default would collect dozens of times a second.
func limitMemory(mib int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(mib) << 20)
	}
}
