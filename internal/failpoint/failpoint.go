// Package failpoint names places in the trusted programs at which a test can have
// the power fail, the disk be full, or a process stand still. Programs that are
// built as they are released have none of it: Hit is a constant there, which the
// compiler removes, and a layout test holds that no build of ours sets the tag.
//
// With the build tag failpoints, the file that the environment variable
// EHSM_FAILPOINTS names is read at each Hit, so that a test can change it while the
// program runs. Its lines are POINT DETAIL ACTION; DETAIL may be *. Actions:
//
//	kill   the process ends by SIGKILL
//	full   Hit returns an error that is syscall.ENOSPC
//	block  Hit returns when the file has the line no longer
//
// What is hit is told on standard error.
package failpoint
