//go:build !linux

package e2e_test

import "syscall"

// dieWithParent is nothing where the kernel cannot do it.
func dieWithParent() *syscall.SysProcAttr { return nil }
