package health

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
)

// Kind grpc: one unary call of grpc.health.v1.Health/Check, made by hand over HTTP/2. What is on the wire is so little that
// a library would be a hundred times as large (docs/decisions/0034-health-by-hand.md).
//
//	call and answer:  0 | length, 4 bytes | message
//	HealthCheckRequest:  1: service, text      HealthCheckResponse:  1: status, a number, 1 being SERVING

// maxMessage bounds an answer; a good one has two bytes.
const maxMessage = 1 << 10

var servingStatus = map[uint64]string{0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}

func (p *Prober) askGRPC(ctx context.Context, c *check) outcome {
	return p.request(ctx, c, "h2", func(client *http.Client, base string) outcome {
		request, err := http.NewRequestWithContext(ctx, "POST", base+"/grpc.health.v1.Health/Check", bytes.NewReader(grpcCall(c.h.Service)))
		if err != nil {
			return isBad("%s", cut(err.Error(), 200))
		}
		request.Host = c.hostHeader()
		request.Header.Set("User-Agent", "awe4lb-health")
		request.Header.Set("Content-Type", "application/grpc")
		request.Header.Set("TE", "trailers")
		response, err := client.Do(request)
		if err != nil {
			return c.failedHTTP(err)
		}
		defer response.Body.Close()
		if response.StatusCode != 200 {
			return isBad("status: got %d of HTTP; want 200, and an answer of gRPC", response.StatusCode)
		}
		body, err := io.ReadAll(io.LimitReader(response.Body, maxMessage))
		if err != nil {
			return c.failed("answer", err)
		}
		return judgeGRPC(body, first(response.Trailer, response.Header, "Grpc-Status"), first(response.Trailer, response.Header, "Grpc-Message"))
	})
}

// first returns a field of the trailer; an answer without a message has it in the header.
func first(trailer, header http.Header, name string) string {
	if v := trailer.Get(name); v != "" {
		return v
	}
	return header.Get(name)
}

// grpcCall returns a HealthCheckRequest as it is sent.
func grpcCall(service string) []byte {
	var message []byte
	if service != "" {
		message = binary.AppendUvarint(append(message, 1<<3|2), uint64(len(service)))
		message = append(message, service...)
	}
	call := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return append(call, message...)
}

// judgeGRPC judges an answer: its body, and what is said of the call.
func judgeGRPC(body []byte, status, message string) outcome {
	switch status {
	case "0":
	case "":
		return isBad("answer: it does not say how the call ended")
	case "5":
		return isBad("answer: the service is not known there")
	case "12":
		return isBad("answer: it does not implement grpc.health.v1.Health")
	default:
		return isBad("answer: gRPC status %s, %s", shown(status), shown(message))
	}
	serving, err := parseServing(body)
	switch {
	case err != nil:
		return isBad("answer: %v", err)
	case serving == 1:
		return isGood("SERVING")
	case servingStatus[serving] != "":
		return isBad("answer: %s", servingStatus[serving])
	}
	return isBad("answer: status %d", serving)
}

var errGRPC = errors.New("not a HealthCheckResponse")

// parseServing returns the status in a HealthCheckResponse as it was sent; a status that is left out is 0.
func parseServing(body []byte) (status uint64, err error) {
	if len(body) < 5 || body[0] != 0 || int64(binary.BigEndian.Uint32(body[1:5])) != int64(len(body)-5) {
		return 0, errGRPC
	}
	for b := body[5:]; len(b) > 0; {
		tag, n := binary.Uvarint(b)
		if n <= 0 || tag>>3 == 0 {
			return 0, errGRPC
		}
		b = b[n:]
		skip := 0
		switch tag & 7 {
		case 0: // a number
			v, n := binary.Uvarint(b)
			if n <= 0 {
				return 0, errGRPC
			}
			if tag>>3 == 1 {
				status = v
			}
			skip = n
		case 1:
			skip = 8
		case 5:
			skip = 4
		case 2: // bytes
			length, n := binary.Uvarint(b)
			if n <= 0 || length > uint64(len(b)-n) {
				return 0, errGRPC
			}
			skip = n + int(length)
		default:
			return 0, errGRPC
		}
		if skip > len(b) {
			return 0, errGRPC
		}
		b = b[skip:]
	}
	return status, nil
}
