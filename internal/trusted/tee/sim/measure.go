package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Files beside an executable.
const (
	// SignatureSuffix ends the name of the file with an executable's Signature.
	SignatureSuffix = ".sigsim"
	// EnvironmentSuffix ends the name of the file with its measured configuration.
	EnvironmentSuffix = ".env"
)

const measurementLabel = "ehsm/sim-measurement/v2\x00"

// ErrProgram is wrapped by the errors about an executable and the files beside it.
var ErrProgram = errors.New("the program cannot be measured")

// A Program is what was measured of an executable.
type Program struct {
	// Measurement is MRENCLAVE: SHA-256 over a label, the executable and the
	// environment, each after its length.
	Measurement [32]byte
	// Environment is the measured configuration: the variables that the program
	// is given whatever the host says; see ParseEnvironment. Often empty.
	Environment []byte
	// Signature is checked against Measurement. It is nil where there is none.
	Signature *Signature
}

// MeasureSelf measures the running program. Errors: ErrProgram, ErrSignature,
// ErrEnvironment.
func MeasureSelf() (Program, error) {
	path, err := os.Executable()
	if err != nil {
		return Program{}, fmt.Errorf("%w: %w", ErrProgram, err)
	}
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		return Program{}, fmt.Errorf("%w: %w", ErrProgram, err)
	}
	defer exe.Close()
	return Measure(exe, path)
}

// MeasureFile measures the executable at path as if it ran. Errors: those of
// Measure.
func MeasureFile(path string) (Program, error) {
	exe, err := os.Open(path)
	if err != nil {
		return Program{}, fmt.Errorf("%w: %w", ErrProgram, err)
	}
	defer exe.Close()
	return Measure(exe, path)
}

// Measure measures an executable that is open, with the files beside its path. The path must still lead to it. A signature that is not for
// it is an error. Errors: ErrProgram, ErrSignature, ErrEnvironment.
func Measure(exe *os.File, path string) (Program, error) {
	p, err := measureUnsigned(exe, path)
	if err != nil {
		return Program{}, err
	}
	b, err := readBeside(path+SignatureSuffix, signatureSize+1)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return Program{}, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	s, err := DecodeSignature(b)
	if err != nil {
		return Program{}, fmt.Errorf("%s: %w", path+SignatureSuffix, err)
	}
	if s.Measurement != p.Measurement {
		return Program{}, fmt.Errorf("%w: %s is for a program of measurement %x, this is %x; sign it again",
			ErrSignature, path+SignatureSuffix, s.Measurement, p.Measurement)
	}
	p.Signature = &s
	return p, nil
}

// measureUnsigned is Measure without the signature.
func measureUnsigned(exe *os.File, path string) (p Program, err error) {
	opened, err := exe.Stat()
	if err != nil {
		return p, fmt.Errorf("%w: %w", ErrProgram, err)
	}
	named, err := os.Stat(path)
	if err != nil {
		return p, fmt.Errorf("%w: %w", ErrProgram, err)
	}
	if !opened.Mode().IsRegular() || !os.SameFile(opened, named) {
		return p, fmt.Errorf("%w: another file is at %s now", ErrProgram, path)
	}
	p.Environment, err = readBeside(path+EnvironmentSuffix, maxEnvironment)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return p, fmt.Errorf("%w: %w", ErrEnvironment, err)
	}
	if _, err := ParseEnvironment(p.Environment); err != nil {
		return p, fmt.Errorf("%s: %w", path+EnvironmentSuffix, err)
	}
	p.Measurement, err = measurement(io.NewSectionReader(exe, 0, opened.Size()+1), opened.Size(), p.Environment)
	return p, err
}

// measurement is MRENCLAVE of an executable, which must have size bytes.
func measurement(exe io.Reader, size int64, environment []byte) (sum [32]byte, err error) {
	h := sha256.New()
	io.WriteString(h, measurementLabel)
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(size))
	h.Write(length[:])
	n, err := io.Copy(h, exe)
	if err != nil {
		return sum, fmt.Errorf("%w: %w", ErrProgram, err)
	}
	if n != size { // a running executable cannot be written to, another can
		return sum, fmt.Errorf("%w: it changes while it is read", ErrProgram)
	}
	binary.BigEndian.PutUint64(length[:], uint64(len(environment)))
	h.Write(length[:])
	h.Write(environment)
	return [32]byte(h.Sum(nil)), nil
}

func readBeside(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAtMost(f, path, limit)
}

// readAtMost reads a file to its end, of at most limit bytes.
func readAtMost(f *os.File, path string, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return b, nil
}
