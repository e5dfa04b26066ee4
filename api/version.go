package api

import "runtime/debug"

// Version is the version of this module.
const Version = "0.1.0"

// Commit returns the commit that the running program was built from, with
// "-dirty" if the tree had changes, and "" if the build does not say.
func Commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	var revision, dirty string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	if revision == "" {
		return ""
	}
	return revision + dirty
}
