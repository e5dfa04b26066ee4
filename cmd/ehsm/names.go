package main

import (
	"slices"
	"strings"

	"github.com/ehsm-kms/ehsm/api"
)

// parsePadding reads a padding by its short name or that of the API.
func parsePadding(text string, allowed ...string) (api.PaddingMode, error) {
	names := map[string]api.PaddingMode{"pkcs1": api.PKCS1, "pss": api.PSS, "oaep": api.OAEP}
	for _, short := range allowed {
		if strings.EqualFold(text, short) || text == string(names[short]) {
			return names[short], nil
		}
	}
	return "", usagef("padding is %q, want %s", text, strings.Join(allowed, " or "))
}

// parsePaddings reads a list of paddings, none from "".
func parsePaddings(list []string) ([]api.PaddingMode, error) {
	var paddings []api.PaddingMode
	for _, text := range list {
		p, err := parsePadding(text, "pkcs1", "pss", "oaep")
		if err != nil {
			return nil, err
		}
		paddings = append(paddings, p)
	}
	return paddings, nil
}

// parseSpec reads the name of a spec, with or without its prefix EH_, in any
// letter case.
func parseSpec(text string) (api.KeySpec, error) {
	s := api.KeySpec("EH_" + strings.TrimPrefix(strings.ToUpper(text), "EH_"))
	if !slices.Contains(api.KeySpecs(), s) {
		return "", usagef("spec is %q, want one of: %s", text, specNames())
	}
	return s, nil
}

func specNames() string {
	var names []string
	for _, s := range api.KeySpecs() {
		names = append(names, strings.TrimPrefix(string(s), "EH_"))
	}
	return strings.Join(names, " ")
}

// parseDigest reads the name of a digest, such as sha256; "" is the key's own.
func parseDigest(text string) (api.DigestMode, error) {
	digests := map[string]api.DigestMode{
		"": "", "sha224": api.SHA224, "sha256": api.SHA256, "sha384": api.SHA384, "sha512": api.SHA512, "sm3": api.SM3,
	}
	d, ok := digests[strings.ToLower(strings.ReplaceAll(text, "-", ""))]
	if !ok {
		return "", usagef("digest is %q, want sha224, sha256, sha384, sha512 or sm3", text)
	}
	return d, nil
}
