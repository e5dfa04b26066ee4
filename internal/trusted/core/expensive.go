package core

// Expensive reports whether an action may take long, as those that make keys or
// do private-key operations. A server of a stream runs them beside the others.
func Expensive(action string) bool {
	switch action {
	case "CreateKey", "AsymmetricDecrypt", "Sign", "Verify", "ExportDataKey", "GetParametersForImport", "ImportKeyMaterial":
		return true
	}
	return false
}
