// quic-go as client and as server of HTTP/3. A child process of the benchmark (see processes.py): its first line
// says that it is ready; it answers each line of its stdin with one line, and ends with it.
//
// usage: quicgo server CERT KEY
//
//	quicgo client PORT CERT CONNECTIONS AT_ONCE
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// Datagrams of the same size as all peers', and no path MTU discovery.
var config = &quic.Config{
	InitialPacketSize:       1350,
	DisablePathMTUDiscovery: true,
	MaxIncomingStreams:      1000,
}

var small = []byte("hello world")

func say(what map[string]any) {
	line, err := json.Marshal(what)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

func version() string {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "github.com/quic-go/quic-go" {
			return module.Version + ", " + runtime.Version()
		}
	}
	return runtime.Version()
}

// ---------------------------------------------------------------- server

func serve(cert, key string) error {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return err
	}
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	var requests, sent atomic.Int64
	server := &http3.Server{
		TLSConfig:  http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{pair}}),
		QUICConfig: config,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			sent.Add(int64(len(small)))
			w.Header().Set("content-length", "11")
			w.Write(small)
		}),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(udp) }()
	say(map[string]any{"ready": true, "port": udp.LocalAddr().(*net.UDPAddr).Port, "version": version(),
		"procs": runtime.GOMAXPROCS(0)})
	lines := make(chan bool)
	go func() {
		for input := bufio.NewScanner(os.Stdin); input.Scan(); {
			lines <- true
		}
		close(lines)
	}()
	for {
		select {
		case err := <-failed:
			return err
		case _, more := <-lines:
			if !more {
				return nil
			}
			say(map[string]any{"requests": requests.Load(), "body_sent": sent.Load()})
		}
	}
}

// ---------------------------------------------------------------- client

type client struct {
	transports []*http3.Transport
	url        string
	atOnce     int
	number     atomic.Int64
}

func connect(port, cert string, connections, atOnce int) (*client, error) {
	pem, err := os.ReadFile(cert)
	if err != nil {
		return nil, err
	}
	trusted := x509.NewCertPool()
	if !trusted.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in " + cert)
	}
	c := &client{url: "https://127.0.0.1:" + port, atOnce: atOnce}
	for range connections { // a transport keeps one connection to a host
		c.transports = append(c.transports, &http3.Transport{
			TLSClientConfig:    &tls.Config{RootCAs: trusted},
			QUICConfig:         config,
			DisableCompression: true,
		})
	}
	for _, transport := range c.transports {
		if _, err := c.get(transport); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// A request with its own path, and a field of its own; the bytes of its answer.
func (c *client) get(transport *http3.Transport) (int64, error) {
	n := strconv.FormatInt(c.number.Add(1), 10)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, "GET", c.url+"/item/"+n, nil)
	if err != nil {
		return 0, err
	}
	request.Header.Set("x-request-id", "request-"+n)
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != 200 || response.ProtoMajor != 3 {
		return 0, fmt.Errorf("status %d, %s", response.StatusCode, response.Proto)
	}
	return io.Copy(io.Discard, response.Body)
}

func (c *client) run(count int64) (map[string]any, error) {
	var left, received atomic.Int64
	left.Store(count)
	failed := make(chan error, c.atOnce)
	started := time.Now()
	var all sync.WaitGroup
	for i := range c.atOnce {
		all.Add(1)
		go func() {
			defer all.Done()
			transport := c.transports[i%len(c.transports)]
			for left.Add(-1) >= 0 {
				n, err := c.get(transport)
				if err != nil {
					failed <- err
					return
				}
				received.Add(n)
			}
		}()
	}
	all.Wait()
	seconds := time.Since(started).Seconds()
	select {
	case err := <-failed:
		return nil, err
	default:
	}
	return map[string]any{"requests": count, "body_received": received.Load(), "seconds": seconds}, nil
}

func load(port, cert, connections, atOnce string) error {
	n, err := strconv.Atoi(connections)
	if err != nil {
		return err
	}
	m, err := strconv.Atoi(atOnce)
	if err != nil {
		return err
	}
	c, err := connect(port, cert, n, m)
	if err != nil {
		return err
	}
	say(map[string]any{"ready": true, "version": version(), "procs": runtime.GOMAXPROCS(0)})
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		var command struct{ Count int64 }
		if err := json.Unmarshal(input.Bytes(), &command); err != nil {
			return err
		}
		answer, err := c.run(command.Count)
		if err != nil {
			return err
		}
		say(answer)
	}
	for _, transport := range c.transports {
		transport.Close()
	}
	return nil
}

func main() {
	var err error
	switch arguments := os.Args[1:]; {
	case len(arguments) == 3 && arguments[0] == "server":
		err = serve(arguments[1], arguments[2])
	case len(arguments) == 5 && arguments[0] == "client":
		err = load(arguments[1], arguments[2], arguments[3], arguments[4])
	default:
		err = errors.New("usage: quicgo server CERT KEY | quicgo client PORT CERT CONNECTIONS AT_ONCE")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "quicgo:", err)
		os.Exit(1)
	}
}
