package gramine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// DefaultDir is where Gramine shows its device inside an enclave.
const DefaultDir = "/dev/attestation"

// Names below the device directory. Source: Gramine's documentation,
// "Attestation and Secret Provisioning", low-level interface.
const (
	typeFile         = "attestation_type"
	reportDataFile   = "user_report_data"
	targetInfoFile   = "target_info"
	myTargetInfoFile = "my_target_info"
	reportFile       = "report"
	quoteFile        = "quote"
	signerKeyFile    = "keys/_sgx_mrsigner"
	measuredKeyFile  = "keys/_sgx_mrenclave"
)

// maxFile is more than any of the files has: a quote has at most 16 KiB.
const maxFile = 32 << 10 // bytes

// A FileSystem opens the files of a device directory.
type FileSystem interface {
	// Open opens a file for reading, or else for writing.
	Open(name string, write bool) (io.ReadWriteCloser, error)
}

// Dir is the device directory at a path.
type Dir string

// Open implements FileSystem. It makes no file.
func (d Dir) Open(name string, write bool) (io.ReadWriteCloser, error) {
	flag := os.O_RDONLY
	if write {
		flag = os.O_WRONLY
	}
	f, err := os.OpenFile(filepath.Join(string(d), name), flag, 0)
	if err != nil {
		return nil, err // not f: a nil *os.File is no nil interface
	}
	return f, nil
}

// read returns all of a file, which it opens anew: Gramine fills a file when it
// is opened, so an old handle has an old answer.
func read(fsys FileSystem, name string) ([]byte, error) {
	f, err := fsys.Open(name, false)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("read %s: more than %d bytes", name, maxFile)
	}
	return b, nil
}

// write writes a file in one call. Gramine takes the bytes over when the file
// is closed, so an error of Close is an error of the write.
func write(fsys FileSystem, name string, b []byte) (err error) {
	f, err := fsys.Open(name, true)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	n, err := f.Write(b)
	if err == nil && n != len(b) {
		err = io.ErrShortWrite
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
