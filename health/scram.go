package health

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
)

// Passwords of PostgreSQL. SCRAM-SHA-256 is RFC 5802 and 7677, without channel binding; the user name is in the startup
// message, so that it is empty here.
const scramName = "SCRAM-SHA-256"

// maxIterations bounds the work that a server can make us do; PostgreSQL's default is 4096.
const maxIterations = 1_000_000

var (
	errSCRAM  = errors.New("not a message of SCRAM")
	errServer = errors.New("the server does not know the password")
)

// scram is the client's side of one login.
type scram struct {
	password, nonce string
	serverSignature []byte
	verified        bool
}

func newSCRAM(password string) *scram { return &scram{password: password, nonce: rand.Text()} }

func (s *scram) bare() string { return "n=,r=" + s.nonce }

// first returns the first message.
func (s *scram) first() string { return "n,," + s.bare() }

// final answers the server's first message.
func (s *scram) final(challenge string) (string, error) {
	nonce, salt, iterations, err := s.parse(challenge)
	if err != nil {
		return "", err
	}
	salted, err := pbkdf2.Key(sha256.New, s.password, salt, iterations, sha256.Size)
	if err != nil {
		return "", err
	}
	without := "c=biws,r=" + nonce // biws is n,,
	signed := []byte(s.bare() + "," + challenge + "," + without)
	clientKey := sum(salted, []byte("Client Key"))
	stored := sha256.Sum256(clientKey)
	proof := sum(stored[:], signed)
	for i := range proof {
		proof[i] ^= clientKey[i]
	}
	s.serverSignature = sum(sum(salted, []byte("Server Key")), signed)
	return without + ",p=" + base64.StdEncoding.EncodeToString(proof), nil
}

// parse reads the server's first message.
func (s *scram) parse(challenge string) (nonce string, salt []byte, iterations int, err error) {
	parts := strings.Split(challenge, ",")
	if len(parts) < 3 || !strings.HasPrefix(parts[0], "r="+s.nonce) || len(parts[0]) <= len("r="+s.nonce) ||
		!strings.HasPrefix(parts[1], "s=") || !strings.HasPrefix(parts[2], "i=") {
		return "", nil, 0, errSCRAM
	}
	salt, err = base64.StdEncoding.DecodeString(parts[1][2:])
	if err != nil || len(salt) == 0 {
		return "", nil, 0, errSCRAM
	}
	iterations, err = strconv.Atoi(parts[2][2:])
	if err != nil || iterations < 1 || iterations > maxIterations {
		return "", nil, 0, errSCRAM
	}
	return parts[0][2:], salt, iterations, nil
}

// verify checks that the server knows the password too.
func (s *scram) verify(message string) error {
	signature, ok := strings.CutPrefix(message, "v=")
	got, err := base64.StdEncoding.DecodeString(signature)
	if !ok || err != nil || s.serverSignature == nil || !hmac.Equal(got, s.serverSignature) {
		return errServer
	}
	s.verified = true
	return nil
}

func sum(key, text []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(text)
	return h.Sum(nil)
}

// pgMD5 is PostgreSQL's own scheme of old.
func pgMD5(user, password string, salt []byte) string {
	inner := md5.Sum([]byte(password + user))
	outer := md5.Sum(append([]byte(hex.EncodeToString(inner[:])), salt...))
	return "md5" + hex.EncodeToString(outer[:])
}
