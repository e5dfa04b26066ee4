package wire

// Expensive reports whether an action may take long, as those that make keys or
// do private-key operations. A server of a stream runs them beside the others, and
// a manager lets in few at a time.
func Expensive(action string) bool {
	switch action {
	case "CreateKey", "AsymmetricDecrypt", "Sign", "Verify", "ExportDataKey", "GetParametersForImport", "ImportKeyMaterial",
		"VerifyQuote":
		return true
	}
	return false
}

// Slow reports whether an action may wait for the platform for hundreds of
// milliseconds, without using a processor. A server of a stream must not have a
// worker wait for it.
func Slow(action string) bool { return action == "GenerateQuote" || action == "GetEvidence" }
