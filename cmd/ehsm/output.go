package main

import (
	"encoding/json"
	"fmt"
)

// emit prints a result: v as indented JSON, or text as it is.
func (a *app) emit(v any, text string) error {
	if a.output == outputText {
		return a.print(text)
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	return a.print(string(b) + "\n")
}

func (a *app) print(text string) error {
	if _, err := a.stdout.Write([]byte(text)); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}
