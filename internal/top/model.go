package top

import (
	"context"
	"time"

	"awe4lb/internal/client"

	tea "charm.land/bubbletea/v2"
)

// The tabs, in the order of their keys.
const (
	tabBackends = iota
	tabPools
	tabFrontends
	tabSessions
	tabEvents
	numTabs
)

var tabNames = [numTabs]string{"backends", "pools", "frontends", "sessions", "events"}

const (
	statusEvery    = 5 // seconds
	sessionsEvery  = 2
	sessionsAtOnce = 500
	staleAfter     = 3 * time.Second
	maxEvents      = 1000 // as the admin keeps
)

// Model is the state of the screen: what was last heard, and where the user is. It is changed by messages alone.
type Model struct {
	// Set once, never changed.
	ctx  context.Context
	api  *client.Client
	now  func() time.Time
	zone *time.Location

	width, height int

	// What was heard.
	sample   *client.Sample // never nil
	heard    time.Time      // when; zero: never
	cut      string         // why the stream is cut; "" while it flows
	status   *client.Status // nil before the first
	sessions []client.Session
	total    int // of sessions there are; -1: not known
	events   []client.Event
	trouble  string // why sessions could not be listed

	// Where the user is.
	tab    int
	lists  [numTabs]list
	pool   string // whose backends and sessions are shown; "": of all
	of     string // the backend whose sessions are shown
	paused bool
	help   bool
	prompt *prompt
	ask    *question
	note   string // what became of the last order

	ticks   int
	loading [2]bool // status, sessions: an answer is awaited
}

// newModel returns a model that has heard nothing.
func newModel(ctx context.Context, api *client.Client) *Model {
	m := &Model{ctx: ctx, api: api, now: time.Now, zone: time.Local, sample: &client.Sample{}, total: -1, width: 80, height: 24}
	for i := range m.lists {
		m.lists[i].sort = -1
	}
	return m
}

// The messages.
type (
	sampleMsg struct{ sample *client.Sample }
	changeMsg struct{ events []client.Event } // the newest first
	cutMsg    struct{ err error }
	tickMsg   struct{}
	statusMsg struct {
		status *client.Status
		err    error
	}
	eventsMsg   struct{ events []client.Event }
	sessionsMsg struct {
		list client.SessionList
		err  error
	}
	orderedMsg struct{ note string }
)

// Init asks for everything once.
func (m *Model) Init() tea.Cmd {
	m.loading[0] = true
	return tea.Batch(m.loadStatus, m.loadEvents, tick())
}

func tick() tea.Cmd { return tea.Tick(time.Second, func(time.Time) tea.Msg { return tickMsg{} }) }

// Update takes one message.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return m, m.key(msg.Key())
	case tea.PasteMsg:
		m.typed(msg.Content)
	case sampleMsg:
		return m, m.hear(msg.sample)
	case cutMsg:
		m.cut = msg.err.Error()
	case changeMsg:
		m.events = append(append([]client.Event{}, msg.events...), m.events...)
		m.events = m.events[:min(len(m.events), maxEvents)]
		return m, m.refreshStatus()
	case eventsMsg:
		m.events = msg.events
	case statusMsg:
		m.loading[0] = false
		if msg.err == nil {
			m.status = msg.status
		}
	case sessionsMsg:
		m.showSessions(msg)
	case orderedMsg:
		m.note = msg.note
		return m, tea.Batch(m.refreshStatus(), m.refreshSessions())
	case tickMsg:
		m.ticks++
		return m, tea.Batch(tick(), m.poll())
	}
	return m, nil
}

// hear takes a sample.
func (m *Model) hear(s *client.Sample) tea.Cmd {
	missed := m.cut != ""
	m.cut, m.heard = "", m.now()
	if !m.paused {
		m.sample = s
	}
	if missed { // changes, while it was cut
		return tea.Batch(m.loadEvents, m.refreshStatus())
	}
	return nil
}

// poll asks for what does not come by the stream.
func (m *Model) poll() tea.Cmd {
	var cmds []tea.Cmd
	if m.ticks%statusEvery == 0 {
		cmds = append(cmds, m.refreshStatus())
	}
	if m.ticks%sessionsEvery == 0 && !m.paused {
		cmds = append(cmds, m.refreshSessions())
	}
	return tea.Batch(cmds...)
}

func (m *Model) refreshStatus() tea.Cmd {
	if m.loading[0] {
		return nil
	}
	m.loading[0] = true
	return m.loadStatus
}

func (m *Model) refreshSessions() tea.Cmd {
	if m.tab != tabSessions || m.loading[1] {
		return nil
	}
	m.loading[1] = true
	return m.loadSessions()
}

func (m *Model) showSessions(msg sessionsMsg) {
	m.loading[1] = false
	if msg.err != nil {
		m.trouble = msg.err.Error()
		return
	}
	m.trouble, m.sessions, m.total = "", msg.list.Sessions, -1
	switch {
	case msg.list.Total != nil:
		m.total = *msg.list.Total
	case msg.list.Next == "":
		m.total = len(m.sessions)
	}
}

// page returns the table of the tab.
func (m *Model) page() page {
	switch m.tab {
	case tabBackends:
		return m.backends()
	case tabPools:
		return m.pools()
	case tabFrontends:
		return m.frontends()
	case tabSessions:
		return m.sessionTable()
	}
	return m.eventTable()
}

// list returns where the user is in it.
func (m *Model) list() *list { return &m.lists[m.tab] }
