package verify

// Decoders of hostile bytes, for fuzzing.
var (
	ParsePlatform   = parsePlatform
	ParseTCBInfo    = parseTCBInfo
	ParseQEIdentity = parseQEIdentity
	ParseCRL        = parseCRL
)
