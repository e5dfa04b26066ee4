package config

import "strings"

// KMSFile is the variable that names the settings file of ehsm-kms.
const KMSFile = "EHSM_KMS_CONFIG"

const kmsPrefix = "EHSM_KMS_"

// KMSKeys lists the settings of ehsm-kms as its file names them: in lower case,
// without the prefix of the variables. What the file may not have, because it
// may be a private key itself, has a variable of another prefix.
func KMSKeys() []string {
	var keys []string
	for _, s := range new(KMS).table() {
		if key, ok := strings.CutPrefix(s.name, kmsPrefix); ok {
			keys = append(keys, strings.ToLower(key))
		}
	}
	return keys
}

// WithKMSFile returns a getenv for LoadKMS that falls back to the values of a
// file. The environment wins.
func WithKMSFile(getenv func(string) string, values map[string]string) func(string) string {
	return func(name string) string {
		if text := getenv(name); text != "" {
			return text
		}
		key, ok := strings.CutPrefix(name, kmsPrefix)
		if !ok {
			return ""
		}
		return values[strings.ToLower(key)]
	}
}
