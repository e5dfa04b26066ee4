package wire

// Expensive reports whether an action may take long, as those that make keys or
// do private-key operations. A server of a stream runs them beside the others, and
// a manager lets in few at a time.
func Expensive(action string) bool {
	switch action {
	case "CreateKey", "AsymmetricDecrypt", "Sign", "Verify", "ExportDataKey", "GetParametersForImport", "ImportKeyMaterial",
		"VerifyQuote", "BatchEncrypt", "BatchReEncrypt", "Login":
		return true
	}
	return false
}

// Slow reports whether an action may wait for hundreds of milliseconds without using a
// processor: for the platform, or, with up to a thousand private-key operations, for its
// turns inside the core. Nothing that others need must be kept for it meanwhile.
func Slow(action string) bool {
	switch action {
	case "GenerateQuote", "GetEvidence", "BatchDecrypt", "BatchSign", "BatchVerify":
		return true
	}
	return false
}
