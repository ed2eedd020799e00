package top

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"awe4lb/internal/client"
	"awe4lb/internal/human"

	tea "charm.land/bubbletea/v2"
)

// What is asked and ordered of the admin. Commands run on goroutines of their own: they take what they need from the model
// before, and their answers come as messages.

func (m *Model) loadStatus() tea.Msg {
	var s client.Status
	err := m.api.Get(m.ctx, "/api/v1/status", nil, &s)
	return statusMsg{&s, err}
}

func (m *Model) loadEvents() tea.Msg {
	var list client.EventList
	if err := m.api.Get(m.ctx, "/api/v1/events", nil, &list); err != nil {
		return nil // the stream says that something is wrong
	}
	return eventsMsg{list.Events}
}

// serverSorts are the columns of sessions that the admin sorts by, so that the first page has the first of all.
var serverSorts = map[string]string{"CLIENT": "client", "AGE": "age", "IDLE": "idle", "C2B": "bytes", "B2C": "bytes"}

func (m *Model) loadSessions() tea.Cmd {
	q := url.Values{"limit": {strconv.Itoa(sessionsAtOnce)}}
	if m.pool != "" {
		q.Set("pool", m.pool)
	}
	if m.of != "" {
		q.Set("backend", m.of)
	}
	if l := &m.lists[tabSessions]; l.sort >= 0 && !l.reverse {
		if by := serverSorts[m.sessionTable().columns[l.sort].title]; by != "" {
			q.Set("sort", by)
		}
	}
	return func() tea.Msg {
		var list client.SessionList
		err := m.api.Get(m.ctx, "/api/v1/sessions", q, &list)
		return sessionsMsg{list, err}
	}
}

// selected returns the backend under the cursor, or nil with a note of what to do.
func (m *Model) selected() *backend {
	if m.tab != tabBackends {
		m.note = "choose a backend first: 1 shows them"
		return nil
	}
	b := m.backends().current(m.list())
	if b == nil {
		m.note = "there is no backend here"
	}
	return b
}

// order asks whether a backend is to be put into a state.
func (m *Model) order(state string) {
	b := m.selected()
	if b == nil {
		return
	}
	ask := map[string]string{"drain": "drain %s (%d open go on)?", "maintenance": "maintenance of %s (%d open)?", "ready": "enable %s (%d open)?"}[state]
	m.ask = &question{fmt.Sprintf(ask, human.Printable(b.id()), b.Open), m.patch(b, map[string]any{"state": state})}
}

// patch returns the command that orders something of a backend.
func (m *Model) patch(b *backend, body map[string]any) tea.Cmd {
	r := client.Request{Method: http.MethodPatch, Path: "/api/v1/pools/" + b.pool + "/backends/" + b.Address, Body: body}
	id := human.Printable(b.id())
	return func() tea.Msg {
		var now client.Backend
		if err := m.api.Call(m.ctx, r, &now); err != nil {
			return orderedMsg{"not done: " + oneLine(err)}
		}
		return orderedMsg{fmt.Sprintf("%s: %s, weight %d, %d open", id, now.State, now.Weight, now.Open)}
	}
}

func (m *Model) typeWeight() {
	b := m.selected()
	if b == nil {
		return
	}
	m.prompt = &prompt{label: fmt.Sprintf("weight of %s (now %d): ", human.Printable(b.id()), b.Weight), done: func(text string, ok bool) *question {
		text = strings.TrimSpace(text)
		n, err := strconv.Atoi(text)
		switch {
		case !ok:
			return nil
		case text == "":
			return &question{fmt.Sprintf("weight of %s as configured?", human.Printable(b.id())), m.patch(b, map[string]any{"weight": json.RawMessage("null")})}
		case err != nil || n < 0:
			m.note = fmt.Sprintf("weight: got %q; want a number from 0 to 1000", text)
			return nil
		}
		return &question{fmt.Sprintf("weight of %s from %d to %d?", human.Printable(b.id()), b.Weight, n), m.patch(b, map[string]any{"weight": n})}
	}}
}

// kill asks whether the session under the cursor is to end.
func (m *Model) kill() {
	if m.tab != tabSessions {
		m.note = "choose a session first: 4 shows them"
		return
	}
	s := m.sessionTable().current(m.list())
	if s == nil {
		m.note = "there is no session here"
		return
	}
	what := human.Printable(s.Client + " to " + s.Backend)
	r := client.Request{Method: http.MethodDelete, Path: "/api/v1/sessions/" + s.ID}
	m.ask = &question{"end the session of " + what + "?", func() tea.Msg {
		if _, err := m.api.Do(m.ctx, r); err != nil {
			return orderedMsg{"not done: " + oneLine(err)}
		}
		return orderedMsg{"ended: " + what}
	}}
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
