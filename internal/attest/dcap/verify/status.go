package verify

import "fmt"

// Status is a TCB status of Intel's documents. The zero value is invalid, so a
// forgotten field cannot mean UpToDate. Greater is worse.
type Status uint8

const (
	_ Status = iota
	UpToDate
	SWHardeningNeeded
	ConfigurationNeeded
	ConfigurationAndSWHardeningNeeded
	OutOfDate
	OutOfDateConfigurationNeeded
	Revoked
)

var statusNames = [...]string{
	UpToDate:                          "UpToDate",
	SWHardeningNeeded:                 "SWHardeningNeeded",
	ConfigurationNeeded:               "ConfigurationNeeded",
	ConfigurationAndSWHardeningNeeded: "ConfigurationAndSWHardeningNeeded",
	OutOfDate:                         "OutOfDate",
	OutOfDateConfigurationNeeded:      "OutOfDateConfigurationNeeded",
	Revoked:                           "Revoked",
}

// String returns Intel's word for the status.
func (s Status) String() string {
	if int(s) < len(statusNames) && s != 0 {
		return statusNames[s]
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// ParseStatus reads Intel's word for a status of an SGX platform. Errors:
// ErrUnknownStatus.
func ParseStatus(word string) (Status, error) {
	for s, name := range statusNames {
		if s != 0 && name == word {
			return Status(s), nil
		}
	}
	return 0, fmt.Errorf("%w: %q", ErrUnknownStatus, word)
}

// Merge joins the status of a platform with that of its quoting enclave, as
// Intel's quote verification library does. For a quoting enclave every status
// but UpToDate and Revoked means OutOfDate.
//
//	platform                             QE up to date    QE out of date                  QE revoked
//	UpToDate, SWHardeningNeeded          as the platform  OutOfDate                       Revoked
//	ConfigurationNeeded,
//	ConfigurationAndSWHardeningNeeded    as the platform  OutOfDateConfigurationNeeded    Revoked
//	OutOfDate,
//	OutOfDateConfigurationNeeded         as the platform  as the platform                 Revoked
//	Revoked                              Revoked          Revoked                         Revoked
func Merge(platform, qe Status) Status {
	switch {
	case qe == Revoked:
		return Revoked
	case qe == UpToDate:
		return platform
	case platform == UpToDate || platform == SWHardeningNeeded:
		return OutOfDate
	case platform == ConfigurationNeeded || platform == ConfigurationAndSWHardeningNeeded:
		return OutOfDateConfigurationNeeded
	}
	return platform
}
