package admin

import (
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// Logins of the web page. They are a cookie that scripts cannot read and that browsers send to nobody else.
const (
	cookieName = "awe4lb_login"
	loginIdle  = time.Hour      // a login unused for so long ends
	loginLife  = 12 * time.Hour // and so does every login
	maxLogins  = 256            // the one unused for longest gives way
	// Of one user. Who has as many gives way to himself, so that nobody ends the logins of others by logging in.
	maxOwnLogins = 32
)

type login struct {
	who         identity
	begun, used time.Time
}

// logins are the logins alive. They end with the process, and when the configuration of users changes.
type logins struct {
	mu    sync.Mutex
	alive map[[sha256.Size]byte]*login // by the hash of the cookie; guarded by mu
}

// begin returns the cookie of a new login.
func (l *logins) begin(who identity, now time.Time) (cookie string) {
	cookie = rand.Text()
	who.how = "cookie"
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.alive == nil {
		l.alive = map[[sha256.Size]byte]*login{}
	}
	var oldest, ownOldest [sha256.Size]byte
	own := 0
	for sum, o := range l.alive {
		if o.over(now) {
			delete(l.alive, sum)
			continue
		}
		if first := l.alive[oldest]; first == nil || o.used.Before(first.used) {
			oldest = sum
		}
		if o.who.name == who.name {
			own++
			if first := l.alive[ownOldest]; first == nil || o.used.Before(first.used) {
				ownOldest = sum
			}
		}
	}
	switch {
	case own >= maxOwnLogins:
		delete(l.alive, ownOldest)
	case len(l.alive) >= maxLogins:
		delete(l.alive, oldest)
	}
	l.alive[sha256.Sum256([]byte(cookie))] = &login{who, now, now}
	return cookie
}

func (l *login) over(now time.Time) bool {
	return now.Sub(l.used) > loginIdle || now.Sub(l.begun) > loginLife
}

// who returns whose cookie it is, and notes that the login is in use.
func (l *logins) who(cookie string, now time.Time) (identity, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.alive[sha256.Sum256([]byte(cookie))]
	if o == nil || o.over(now) {
		return identity{}, false
	}
	o.used = now
	return o.who, true
}

// isAlive reports whether a login goes on, without using it.
func (l *logins) isAlive(cookie string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.alive[sha256.Sum256([]byte(cookie))]
	return o != nil && !o.over(now)
}

func (l *logins) end(cookie string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.alive, sha256.Sum256([]byte(cookie)))
}

func (l *logins) endAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.alive)
}

// whoAmI is the answer of login and GET /api/v1/me.
type whoAmI struct {
	Name  string `json:"name" description:"of the user, token or certificate; empty for anonymous"`
	How   string `json:"how" enum:"anonymous,basic,bearer,cookie,certificate"`
	Role  string `json:"role" enum:"none,read,operate,configure"`
	Login bool   `json:"login" description:"there are users who can log in"`
}

func (s *Server) whoAmI(who identity) whoAmI {
	return whoAmI{who.name, who.how, who.role.String(), len(s.access.Load().users) > 0}
}

func (s *Server) me(c *call) (any, error) { return s.whoAmI(c.who), nil }

// credentials is the body of a login.
type credentials struct {
	Name     string `json:"name" required:"true"`
	Password string `json:"password" required:"true" format:"password"`
}

func (s *Server) login(c *call) (any, error) {
	var in credentials
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	before := s.access.Load()
	who, err := s.provePassword(c.RequestCtx, in.Name, in.Password)
	if err != nil {
		return nil, err
	}
	value := s.logins.begin(who, time.Now())
	if !s.access.Load().same(before) { // a reload ended the logins while the password was checked
		s.logins.end(value)
		return nil, problemf(fasthttp.StatusConflict, "the users have just changed: log in again")
	}
	s.logins.end(string(c.Request.Header.Cookie(cookieName))) // the one before; whoever has it loses it
	cookie := s.loginCookie(value, int(loginLife/time.Second))
	defer fasthttp.ReleaseCookie(cookie)
	c.Response.Header.SetCookie(cookie)
	who.how, c.who = "cookie", who
	return s.whoAmI(who), nil
}

func (s *Server) logout(c *call) (any, error) {
	s.logins.end(string(c.Request.Header.Cookie(cookieName)))
	cookie := s.loginCookie("", -1)
	defer fasthttp.ReleaseCookie(cookie)
	c.Response.Header.SetCookie(cookie)
	return nil, nil
}

func (s *Server) loginCookie(value string, age int) *fasthttp.Cookie {
	cookie := fasthttp.AcquireCookie()
	cookie.SetKey(cookieName)
	cookie.SetValue(value)
	cookie.SetPath("/")
	cookie.SetMaxAge(age)
	cookie.SetHTTPOnly(true)
	cookie.SetSameSite(fasthttp.CookieSameSiteStrictMode)
	cookie.SetSecure(s.tls)
	return cookie
}
