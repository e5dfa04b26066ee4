package store

// Stats describes a store for metrics. Counters start at zero when it is opened;
// what a store has not stays zero.
type Stats struct {
	Stored    uint64 // changes that were stored, and other jobs that were done
	Conflicts uint64 // changes refused with ErrConflict
	Replayed  uint64 // changes refused with ErrReplayed
	Failed    uint64 // calls that ended in an error of the database, the disk or the network
	Repeated  uint64 // times that the database gave a change up in favour of another one
	Settled   uint64 // times that a change was tried again after an error
	Batches   uint64 // transactions that were synced, each with some of the jobs

	Waiting     int   // changes in the queue now
	Connections int   // to the database, open
	Busy        int   // of them in use
	FileBytes   int64 // size of the database file; 0 if it cannot be told
	LogBytes    int64 // size of its write-ahead log, which is reused and does not shrink
}
