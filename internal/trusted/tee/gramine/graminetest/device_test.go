package graminetest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
)

func get(t *testing.T, d *Device, name string) []byte {
	t.Helper()
	f, err := d.Open(name, false)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t *testing.T, d *Device, name string, b []byte) {
	t.Helper()
	f, err := d.Open(name, true)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func quoted(t *testing.T, b []byte) [64]byte {
	t.Helper()
	q, err := quote.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return q.Report.ReportData
}

func TestOrder(t *testing.T) {
	d := New()
	one, two := bytes.Repeat([]byte{1}, 64), bytes.Repeat([]byte{2}, 64)
	if got := quoted(t, get(t, d, "quote")); got != [64]byte{} {
		t.Errorf("quote before any write binds %x", got)
	}
	put(t, d, "user_report_data", one)
	early, err := d.Open("quote", false)
	if err != nil {
		t.Fatal(err)
	}
	put(t, d, "user_report_data", two)
	b, err := io.ReadAll(early)
	if err != nil || quoted(t, b) != [64]byte(one) {
		t.Errorf("a file opened before the write: got %x, %v, want the older answer", quoted(t, b), err)
	}
	if quoted(t, get(t, d, "quote")) != [64]byte(two) {
		t.Error("a file opened after the write has an older answer")
	}
	d.Stale = true
	if quoted(t, get(t, d, "quote")) != [64]byte(one) {
		t.Error("a stale device answers the newest question")
	}
}

func TestWritesCountOnClose(t *testing.T) {
	d := New()
	f, err := d.Open("user_report_data", true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte{9}); err != nil {
		t.Fatal(err)
	}
	if quoted(t, get(t, d, "quote")) != [64]byte{} {
		t.Error("a write counts before the file is closed")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if quoted(t, get(t, d, "quote")) != [64]byte{9} {
		t.Error("a write does not count after the file was closed, with zeros behind")
	}
}

func TestReadsAreShort(t *testing.T) {
	f, err := New().Open("report", false)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := f.Read(make([]byte, 1000)); n > 7 || err != nil {
		t.Errorf("Read: got %d bytes at once, %v", n, err)
	}
}

func TestReportNamesItsTarget(t *testing.T) {
	d := New()
	before := get(t, d, "report")
	put(t, d, "target_info", get(t, d, "my_target_info"))
	after := get(t, d, "report")
	if len(after) != 432 || bytes.Equal(before[416:], after[416:]) {
		t.Error("the report does not depend on target_info")
	}
}

func TestKeysAreBound(t *testing.T) {
	first := get(t, New(), "keys/_sgx_mrsigner")
	for name, change := range map[string]func(*Device){
		"machine":           func(d *Device) { d.Fuse++ },
		"signer":            func(d *Device) { d.Report.MRSigner[0]++ },
		"product":           func(d *Device) { d.Report.ISVProdID++ },
		"enclave version":   func(d *Device) { d.Report.ISVSVN++ },
		"processor version": func(d *Device) { d.Report.CPUSVN[15]++ },
		"debug":             func(d *Device) { d.Report.Attributes.Flags |= quote.FlagDebug },
	} {
		d := New()
		change(d)
		if bytes.Equal(get(t, d, "keys/_sgx_mrsigner"), first) {
			t.Errorf("other %s: same key", name)
		}
	}
	d := New()
	d.Report.MREnclave[0]++
	if !bytes.Equal(get(t, d, "keys/_sgx_mrsigner"), first) {
		t.Error("the signer's key depends on the measurement")
	}
}

func TestInjectedFailures(t *testing.T) {
	for _, step := range []Step{OnOpen, OnRead, OnWrite, OnClose} {
		d := New()
		d.Fail = map[string]Step{"user_report_data": step, "quote": step}
		write := step != OnRead
		name := map[bool]string{true: "user_report_data", false: "quote"}[write]
		f, err := d.Open(name, write)
		if err == nil && write {
			_, err = f.Write([]byte{1})
			err = errors.Join(err, f.Close())
		} else if err == nil {
			_, err = io.ReadAll(f)
		}
		if !errors.Is(err, ErrInjected) {
			t.Errorf("%s: got %v, want ErrInjected", step, err)
		}
	}
}

func TestFilesThatAreNotThere(t *testing.T) {
	direct := New()
	direct.Direct = true
	none := New()
	none.Type = "none"
	for _, row := range []struct {
		device *Device
		name   string
		write  bool
		want   error
	}{
		{direct, "attestation_type", false, fs.ErrNotExist},
		{direct, "report", false, fs.ErrNotExist},
		{direct, "keys/_sgx_mrsigner", false, fs.ErrNotExist},
		{direct, "user_report_data", true, fs.ErrPermission},
		{none, "quote", false, fs.ErrNotExist},
		{New(), "other", false, fs.ErrNotExist},
		{New(), "quote", true, fs.ErrPermission},
	} {
		if _, err := row.device.Open(row.name, row.write); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
}
