// Command named is what runs in the containers of these tests: it tells everybody who connects to TCP port 8080 the address
// that they reached, and ends when it is told to. It is linked statically, since it is alone in there.
package main

import (
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT, syscall.SIGPWR)
	l, err := net.Listen("tcp", ":8080")
	if err != nil {
		os.Exit(1)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.WriteString(c, c.LocalAddr().String()+"\n")
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	<-stop
}
