package bench

import "fmt"

// Targets for operations that do more than the ceiling server.
const (
	maxAbove  = 40.0 // microseconds of CPU above the primitive's
	maxSecret = 1.5  // times a decryption, for the reading of a secret
	maxItem   = 4.0  // microseconds of CPU for an item of a batch: 500,000 a second on two processors
)

// TargetOperations returns the operations that have a target of their own, and
// what they are compared with.
func TargetOperations() []string {
	return []string{"decrypt", "getsecret", "sign-p256", "verify-p256", "sign-rsa2048", "decrypt-rsa2048", "batchencrypt"}
}

// targets compares what was measured with the targets, a line each. A secret's
// reading and a decryption are compared by their ratios to the ceiling, as their
// rounds do not alternate.
func (r *Report) targets() (lines []string) {
	for _, row := range r.Rows {
		name := fmt.Sprintf("%s, %d bytes, %d connections", row.Operation, row.Size, row.Conns)
		if row.PrimitiveCPU > 0 && row.CPU > 0 {
			lines = append(lines, fmt.Sprintf("target %s: %s: primitive %.1f us, %.1f above it, want at most %.0f",
				verdict(row.Above <= maxAbove), name, row.PrimitiveCPU, row.Above, maxAbove))
		}
		if row.Operation == "batchencrypt" && row.CPU > 0 && row.Size <= 32 {
			lines = append(lines, fmt.Sprintf("target %s: %s: %.2f us of CPU for each of %d items, want at most %.0f; %.0f items/s",
				verdict(row.CPU/batchItems <= maxItem), name, row.CPU/batchItems, batchItems, maxItem, row.Rate*batchItems))
		}
		if row.Operation != "getsecret" || row.Ratio == 0 {
			continue
		}
		for _, other := range r.Rows {
			if other.Operation == "decrypt" && other.Size == row.Size && other.Conns == row.Conns && other.Ratio > 0 {
				times := row.Ratio / other.Ratio
				lines = append(lines, fmt.Sprintf("target %s: %s: %.2f times decrypt, want at most %.1f", verdict(times <= maxSecret), name, times, maxSecret))
			}
		}
	}
	return lines
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "missed"
}
