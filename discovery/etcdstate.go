package discovery

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// number is int64 as the gateway writes it, "7"; it takes 7 too.
type number int64

// UnmarshalJSON reads a number, quoted or not.
func (n *number) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseInt(strings.Trim(string(b), `"`), 10, 64)
	if err != nil {
		return errors.New("want a whole number")
	}
	*n = number(v)
	return nil
}

type etcdHeader struct{ Revision number }

type etcdKV struct {
	Key, Value  []byte
	ModRevision number `json:"mod_revision"`
}

// etcdRange is what we read of an answer to /v3/kv/range.
type etcdRange struct {
	Header *etcdHeader
	Kvs    []etcdKV
	More   bool
}

func decodeRange(b []byte) (*etcdRange, error) {
	var a etcdRange
	if err := unmarshal(b, &a); err != nil {
		return nil, err
	}
	if a.Header == nil || a.Header.Revision <= 0 {
		return nil, fail(ReasonDecode, errors.New("got a range without a revision"))
	}
	return &a, nil
}

// etcdMessage is what we read of a message of /v3/watch.
type etcdMessage struct {
	Result *struct {
		Header   *etcdHeader
		Created  bool
		Canceled bool
		Compact  number `json:"compact_revision"`
		Reason   string `json:"cancel_reason"`
		Events   []struct {
			Type string // "" = PUT
			KV   etcdKV
		}
	}
	Error *struct {
		HTTP    int `json:"http_code"`
		Code    int `json:"grpc_code"`
		Message string
	}
}

// etcdState is what the keys under the prefix say.
type etcdState struct {
	dec  *decoder
	most int64

	revision int64
	bytes    int64 // of keys and values
	keys     map[string]etcdValue
}

type etcdValue struct {
	revision number
	bytes    int64
	list     List
	err      error
}

// apply takes a message, and reports whether it has changed something.
func (s *etcdState) apply(m *etcdMessage) (bool, error) {
	switch r := m.Result; {
	case m.Error != nil:
		return false, refusal{status: m.Error.HTTP, code: m.Error.Code, message: m.Error.Message}.err()
	case r == nil:
		return false, fail(ReasonDecode, errors.New("got a message with neither result nor error"))
	case r.Compact > 0:
		return false, errCompacted
	case r.Canceled:
		return false, fail(ReasonStatus, fmt.Errorf("the watch was cancelled: %s", quote(r.Reason)))
	default:
		for i := range r.Events {
			ev := &r.Events[i]
			switch ev.Type {
			case "", "PUT":
				if err := s.put(ev.KV); err != nil {
					return false, err
				}
			case "DELETE":
				s.remove(ev.KV)
			default:
				return false, fail(ReasonDecode, fmt.Errorf("got an event of type %s; want PUT or DELETE", quote(ev.Type)))
			}
		}
		return len(r.Events) > 0, nil
	}
}

func (s *etcdState) put(kv etcdKV) error {
	if len(kv.Key) == 0 {
		return fail(ReasonDecode, errors.New("got a key without a name"))
	}
	key := string(kv.Key)
	old, ok := s.keys[key]
	if ok && kv.ModRevision < old.revision {
		return nil
	}
	v := etcdValue{revision: kv.ModRevision, bytes: int64(len(kv.Key) + len(kv.Value))}
	if s.bytes += v.bytes - old.bytes; s.bytes > s.most {
		return tooLarge(s.most)
	}
	v.list, v.err = s.dec.value(key, kv.Value)
	if s.keys == nil {
		s.keys = map[string]etcdValue{}
	}
	s.keys[key] = v
	return nil
}

func (s *etcdState) remove(kv etcdKV) {
	key := string(kv.Key)
	if old, ok := s.keys[key]; ok && kv.ModRevision >= old.revision {
		s.bytes -= old.bytes
		delete(s.keys, key)
	}
}

// list puts together what the keys say, in their order.
func (s *etcdState) list() (List, error) {
	var all List
	for _, key := range slices.Sorted(maps.Keys(s.keys)) {
		v := s.keys[key]
		if err := s.dec.join(&all, "key "+quote(key), v.list, v.err); err != nil {
			return List{}, err
		}
	}
	return all, nil
}

// prefixEnd returns the first key behind all that begin with prefix, as etcd's clientv3.GetPrefixRangeEnd does.
func prefixEnd(prefix string) []byte {
	end := []byte(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return []byte{0}
}
