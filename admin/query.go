package admin

import (
	"net/netip"
	"reflect"
	"strconv"

	"github.com/valyala/fasthttp"
)

// query reads the query of a request into the struct that q points to, by its query tags. What it does not know it refuses: a
// filter that is misspelt would mean everything.
func (c *call) query(q any) error {
	v := reflect.ValueOf(q).Elem()
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		fields[v.Type().Field(i).Tag.Get("query")] = v.Field(i)
	}
	for key, value := range c.QueryArgs().All() {
		f, ok := fields[string(key)]
		if !ok {
			return problemf(fasthttp.StatusBadRequest, "query: %q is not known here", cutText(string(key), 80))
		}
		if want := setText(f, string(value)); want != "" {
			return problemf(fasthttp.StatusBadRequest, "query: %s: got %q; want %s", key, cutText(string(value), 80), want)
		}
	}
	return nil
}

// setText puts a text into a value, or says what it wants instead.
func setText(v reflect.Value, text string) (want string) {
	switch p := v.Addr().Interface().(type) {
	case *string:
		*p = text
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return "a number from 0"
		}
		*p = n
	case *bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return "true or false"
		}
		*p = b
	default:
		panic("admin: no way to read a " + v.Type().String())
	}
	return ""
}

// prefixOf reads a prefix or an address, which is the prefix of itself; "" is the zero Prefix.
func prefixOf(text string) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, nil
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, problemf(fasthttp.StatusBadRequest, "client: got %q; want a prefix such as 10.0.0.0/8, or an address", cutText(text, 80))
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}
