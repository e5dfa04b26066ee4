package nodes

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// ErrPorts is returned for addresses that cannot be listened on.
var ErrPorts = errors.New("no address to listen on")

// firstServer is the port from which dkeyservers get theirs. Nobody types it.
const firstServer = 8888

// managers are the addresses of so many managers, the first at listen.
func managers(listen string, n int) ([]string, error) {
	host, text, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", listen, err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: the port is no number", listen)
	}
	if port == 0 {
		return anyFree(host, n)
	}
	var all []string
	for i := range n {
		address := net.JoinHostPort(host, strconv.FormatUint(port+uint64(i), 10))
		if err := try(address); err != nil {
			return nil, fmt.Errorf("%w for node %d: %w", ErrPorts, i+1, err)
		}
		all = append(all, address)
	}
	return all, nil
}

// keyServers are the addresses of so many dkeyservers. They are free ones as those
// of the managers, or else the first free ones.
func keyServers(listen string, n int) ([]string, error) {
	const host = "127.0.0.1"
	if strings.HasSuffix(listen, ":0") {
		return anyFree(host, n)
	}
	var all []string
	for port := firstServer; port < firstServer+1000 && len(all) < n; port++ {
		if address := net.JoinHostPort(host, strconv.Itoa(port)); try(address) == nil {
			all = append(all, address)
		}
	}
	if len(all) < n {
		return nil, fmt.Errorf("%w: no port from %d on is free on %s", ErrPorts, firstServer, host)
	}
	return all, nil
}

// anyFree returns n addresses that nobody listens on now.
func anyFree(host string, n int) ([]string, error) {
	var all []string
	for range n {
		ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrPorts, err)
		}
		defer ln.Close() // not before all are known, or one could come twice
		all = append(all, ln.Addr().String())
	}
	return all, nil
}

// try listens on an address for a moment.
func try(address string) error {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return ln.Close()
}
