package admin

import (
	"strings"

	"github.com/valyala/fasthttp"
)

// setETag says which version of a resource the answer shows.
func (c *call) setETag(tag string) { c.Response.Header.Set("ETag", `"`+tag+`"`) }

// ifMatch fails when the client wants to change another version of a resource than there is; tag is "" when there is none.
func (c *call) ifMatch(tag string) error {
	if want := string(c.Request.Header.Peek("If-None-Match")); want != "" && want != "*" {
		return problemf(fasthttp.StatusBadRequest, "If-None-Match: got %s; want *", want)
	} else if want == "*" && tag != "" {
		return problemf(fasthttp.StatusPreconditionFailed, "it exists already")
	}
	want := string(c.Request.Header.Peek("If-Match"))
	if want == "" || want == "*" && tag != "" {
		return nil
	}
	for each := range strings.SplitSeq(want, ",") {
		if strings.TrimSpace(each) == `"`+tag+`"` && tag != "" {
			return nil
		}
	}
	return problemf(fasthttp.StatusPreconditionFailed, "somebody has changed it meanwhile: If-Match is %s and it is %q", want, tag)
}
