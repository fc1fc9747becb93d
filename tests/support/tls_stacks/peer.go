// A TLS peer of Go's crypto/tls: peer ROLE CHAIN KEY CA. The commands are those of peer.py.
package main

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const limit = 60 * time.Second

var commands = bufio.NewReader(os.Stdin)

func pattern(size int) []byte {
	data := make([]byte, size)
	for at := range data {
		data[at] = byte(at ^ at>>8 ^ at>>16)
	}
	return data
}

type conversation struct {
	tcp    *net.TCPConn
	tls    *tls.Conn
	isSlow bool
	count  int
	digest hash.Hash
	end    string
}

func (c *conversation) step(name string, size int) error {
	switch name {
	case "send":
		_, err := c.tls.Write(pattern(size))
		return err
	case "recv":
		return c.receive(size)
	case "slow":
		c.isSlow = true
	case "half":
		return c.tls.CloseWrite()
	case "close":
		return c.tls.Close()
	case "reset":
		c.tcp.SetLinger(0)
		return c.tcp.Close()
	case "wait":
		fmt.Println("ready")
		_, err := commands.ReadString('\n')
		return err
	}
	return nil
}

// Receives so many bytes, or all to the end if size is negative.
func (c *conversation) receive(size int) error {
	room := 65536
	if c.isSlow {
		room = 8192
		time.Sleep(50 * time.Millisecond)
	}
	buffer, wanted := make([]byte, room), c.count+size
	for size < 0 || c.count < wanted {
		piece := buffer
		if size >= 0 && wanted-c.count < room {
			piece = buffer[:wanted-c.count]
		}
		got, err := c.tls.Read(piece)
		c.count += got
		c.digest.Write(piece[:got])
		switch {
		case err == io.EOF:
			c.end = "eof"
			return nil
		case err == io.ErrUnexpectedEOF:
			c.end = "cut"
			return nil
		case errors.Is(err, syscall.ECONNRESET):
			c.end = "reset"
			return nil
		case err != nil:
			return err
		}
		if c.isSlow {
			time.Sleep(500 * time.Microsecond)
		}
	}
	return nil
}

func converse(listener net.Listener, config *tls.Config, words []string) (string, error) {
	var conn net.Conn
	var err error
	if listener != nil {
		conn, err = listener.Accept()
	} else {
		conn, err = net.DialTimeout("tcp4", "127.0.0.1:"+words[1], limit)
	}
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(limit))
	used := config.Clone()
	used.MinVersion = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}[words[0]]
	used.MaxVersion = used.MinVersion
	c := &conversation{tcp: conn.(*net.TCPConn), digest: sha256.New(), end: "none"}
	if listener != nil {
		c.tls = tls.Server(conn, used)
	} else {
		c.tls = tls.Client(conn, used)
	}
	if err = c.tls.Handshake(); err != nil {
		return "", err
	}
	for _, word := range words[2:] {
		name, text, isSized := strings.Cut(word, ":")
		size := -1
		if isSized {
			size, _ = strconv.Atoi(text)
		}
		if err = c.step(name, size); err != nil {
			return "", fmt.Errorf("%s: %w", word, err)
		}
	}
	return fmt.Sprintf("done %d %x %s", c.count, c.digest.Sum(nil), c.end), nil
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	role := os.Args[1]
	own, err := tls.LoadX509KeyPair(os.Args[2], os.Args[3])
	must(err)
	text, err := os.ReadFile(os.Args[4])
	must(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	config := &tls.Config{
		Certificates: []tls.Certificate{own},
		RootCAs:      pool,
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ServerName:   "localhost",
	}
	var listener net.Listener
	if role == "server" {
		listener, err = net.Listen("tcp4", "127.0.0.1:0")
		must(err)
		fmt.Println("listening", listener.Addr().(*net.TCPAddr).Port)
	} else {
		fmt.Println("started")
	}
	for {
		line, err := commands.ReadString('\n')
		if err != nil {
			return
		}
		result, err := converse(listener, config, strings.Fields(line))
		if err != nil {
			result = "failed " + err.Error()
		}
		fmt.Println(result)
	}
}
