package daemon

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim/protocol"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim/remote"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// programs are what this test binary is in other processes. Each prints its
// result, or the refusal it got.
var programs = map[string]func(args []string) (string, error){
	"sleep":           sleep,
	"measurement":     measurement,
	"identity":        identity,
	"sealkey":         sealKey,
	"report":          report,
	"hidden":          hidden,
	"everything":      everything,
	"become":          become,
	"become late":     becomeLate,
	"lend":            lend,
	"lend for proof":  lendForProof,
	"forge the proof": forgeTheProof,
	"forged proof":    forgedProof,
	"inherited hello": inheritedHello,
	"inherited proof": inheritedProof,
	"inherited ask":   inheritedAsk,
}

func program(name string, args []string) int {
	out, err := programs[name](args)
	if err != nil {
		out = err.Error()
	}
	fmt.Print(out)
	return 0
}

func dial(socket string) (*remote.Machine, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return remote.Dial(ctx, socket, 1, 2)
}

// sleep ends with its input.
func sleep([]string) (string, error) {
	_, err := io.Copy(io.Discard, os.Stdin)
	return "", err
}

func measurement(args []string) (string, error) {
	m, err := dial(args[0])
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", m.Identity().Measurement), nil
}

func identity(args []string) (string, error) {
	m, err := dial(args[0])
	if err != nil {
		return "", err
	}
	id := m.Identity()
	return fmt.Sprintf("signer %x, product %d, version %d, debug %t, development %t, EHSM_X=%s",
		id.Signer, id.Product, id.SVN, id.Debug, m.DevelopmentSigner(), m.Environment()["EHSM_X"]), nil
}

func sealKey(args []string) (string, error) {
	m, err := dial(args[0])
	if err != nil {
		return "", err
	}
	policy, err := strconv.Atoi(args[1])
	if err != nil {
		return "", err
	}
	key, err := m.SealKey(tee.KeyRequest{Policy: tee.Policy(policy), SVN: 2})
	return hex.EncodeToString(key.Expose()), err
}

func report(args []string) (string, error) {
	m, err := dial(args[0])
	if err != nil {
		return "", err
	}
	target, err := hex.DecodeString(args[1])
	if err != nil {
		return "", err
	}
	r, err := m.Report(target, [64]byte{6})
	return hex.EncodeToString(r), err
}

// hidden makes itself undumpable once it is measured.
func hidden(args []string) (string, error) {
	m, err := dial(args[0])
	if err != nil {
		return "", err
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return "", err
	}
	_, err = m.Evidence(context.Background(), [64]byte{1})
	return "served", err
}

// everything uses all of the platform, and prints a seal key.
func everything(args []string) (string, error) {
	m, err := dial(args[0])
	if err != nil {
		return "", err
	}
	target, err := m.Target()
	if err != nil {
		return "", err
	}
	for range 20 {
		if _, err := m.Evidence(context.Background(), [64]byte{1}); err != nil {
			return "", err
		}
		r, err := m.Report(target, [64]byte{2})
		if err != nil {
			return "", err
		}
		if id, data, err := m.VerifyReport(r); err != nil || id != m.Identity() || data != [64]byte{2} {
			return "", fmt.Errorf("report of %+v: %w", id, err)
		}
	}
	return sealKey([]string{args[0], strconv.Itoa(int(tee.BindMeasured))})
}

// What follows are attacks: a process that is measured is not the one that
// speaks.

// say sends a request and returns the reply.
func say(conn net.Conn, r protocol.Request) ([]byte, error) {
	if err := protocol.WriteFrame(conn, r.Append(nil)); err != nil {
		return nil, err
	}
	b, err := protocol.ReadFrame(conn, protocol.MaxReply)
	if err != nil {
		return nil, err
	}
	return protocol.DecodeReply(b)
}

func connect(socket string) (*net.UnixConn, error) {
	return net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
}

func hello() protocol.Request { return protocol.Request{Op: protocol.OpHello, Product: 1, SVN: 2} }

func proof(nonce []byte) protocol.Request {
	return protocol.Request{Op: protocol.OpProve, Nonce: [32]byte(nonce)}
}

// execute replaces this process with another executable, which inherits conn.
func execute(conn *net.UnixConn, exe, name string, args ...string) error {
	f, err := conn.File()
	if err != nil {
		return err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, 0); err != nil {
		return err
	}
	if err := os.Setenv(role, name); err != nil {
		return err
	}
	return syscall.Exec(exe, append([]string{exe, strconv.Itoa(int(f.Fd()))}, args...), os.Environ())
}

// become executes another program once it is measured, and has it prove.
func become(args []string) (string, error) {
	conn, err := connect(args[0])
	if err != nil {
		return "", err
	}
	nonce, err := say(conn, hello())
	if err != nil {
		return "", err
	}
	return "", execute(conn, args[1], "inherited proof", hex.EncodeToString(nonce))
}

// becomeLate executes another program after the proof.
func becomeLate(args []string) (string, error) {
	conn, err := connect(args[0])
	if err != nil {
		return "", err
	}
	nonce, err := say(conn, hello())
	if err != nil {
		return "", err
	}
	if _, err := say(conn, proof(nonce)); err != nil {
		return "", err
	}
	return "", execute(conn, args[1], "inherited ask")
}

// child starts another process with conn and returns what it prints.
func child(conn *net.UnixConn, name string, args ...string) (string, error) {
	f, err := conn.File()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(os.Args[0], append([]string{"3"}, args...)...)
	cmd.Env = append(os.Environ(), role+"="+name)
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.Output()
	return string(out), err
}

// lend connects and has another process speak from the start.
func lend(args []string) (string, error) {
	conn, err := connect(args[0])
	if err != nil {
		return "", err
	}
	return child(conn, "inherited hello")
}

// lendForProof has another process give the proof.
func lendForProof(args []string) (string, error) {
	conn, err := connect(args[0])
	if err != nil {
		return "", err
	}
	nonce, err := say(conn, hello())
	if err != nil {
		return "", err
	}
	return child(conn, "inherited proof", hex.EncodeToString(nonce))
}

func inherited(args []string) (net.Conn, error) {
	fd, err := strconv.Atoi(args[0])
	if err != nil {
		return nil, err
	}
	return net.FileConn(os.NewFile(uintptr(fd), "inherited"))
}

func inheritedHello(args []string) (string, error) {
	conn, err := inherited(args)
	if err != nil {
		return "", err
	}
	_, err = say(conn, hello())
	return "served", err
}

func inheritedProof(args []string) (string, error) {
	conn, err := inherited(args)
	if err != nil {
		return "", err
	}
	nonce, err := hex.DecodeString(args[1])
	if err != nil {
		return "", err
	}
	_, err = say(conn, proof(nonce))
	return "served", err
}

func inheritedAsk(args []string) (string, error) {
	conn, err := inherited(args)
	if err != nil {
		return "", err
	}
	_, err = say(conn, protocol.Request{Op: protocol.OpTarget})
	return "served", err
}

// forgeTheProof has another process give the proof in the name of this one: the
// kernel lets those do so who are root where their pids are from.
func forgeTheProof(args []string) (string, error) {
	conn, err := connect(args[0])
	if err != nil {
		return "", err
	}
	nonce, err := say(conn, hello())
	if err != nil {
		return "", err
	}
	return child(conn, "forged proof", hex.EncodeToString(nonce))
}

func forgedProof(args []string) (string, error) {
	conn, err := inherited(args)
	if err != nil {
		return "", err
	}
	nonce, err := hex.DecodeString(args[1])
	if err != nil {
		return "", err
	}
	parent := unix.UnixCredentials(&unix.Ucred{Pid: int32(os.Getppid()), Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())})
	frame := pack.AppendBytes(nil, proof(nonce).Append(nil))
	if _, _, err := conn.(*net.UnixConn).WriteMsgUnix(frame, parent, nil); err != nil {
		return "", err
	}
	b, err := protocol.ReadFrame(conn, protocol.MaxReply)
	if err != nil {
		return "", err
	}
	_, err = protocol.DecodeReply(b)
	return "served", err
}
