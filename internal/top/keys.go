package top

import (
	"strings"
	"unicode"

	tea "charm.land/bubbletea/v2"
)

// prompt is a line that is being typed.
type prompt struct {
	label  string
	text   string
	change func(text string)                    // at each key; nil: nothing
	done   func(text string, ok bool) *question // at enter or esc; may return what to ask next
}

// question waits for y.
type question struct {
	text string
	do   tea.Cmd
}

// help is what ? shows; docs/cli.md has the same.
const help = `1 to 5, tab    backends, pools, frontends, sessions, events
↑ ↓ j k        move; also page up and down, home and end, g and G
enter          of a pool its backends, of a backend its sessions
esc            back: no filter, all pools
/              filter: rows that have all the words
< >            sort by the column to the left, to the right
r              the other way round
space          hold the picture still, or let it go on
d m e          drain the backend, maintenance, enable it again
w              give it another weight; none typed: as configured
x              end the session
? q            this help; quit

An order is done when y answers the question in the last line.
Drain: no new sessions, open ones go on. Maintenance: the pool's
on_maintenance says what becomes of them. Orders outlive reloads.`

// key does what a key says.
func (m *Model) key(k tea.Key) tea.Cmd {
	name := k.String()
	if name == "ctrl+c" {
		return tea.Quit
	}
	if name == "ctrl+z" {
		return tea.Suspend
	}
	switch {
	case m.ask != nil:
		return m.answer(name)
	case m.prompt != nil:
		m.edit(name, k.Text)
		return nil
	case m.help:
		m.help = false
		return nil
	}
	m.note = ""
	switch name {
	case "q":
		return tea.Quit
	case "?":
		m.help = true
	case "1", "2", "3", "4", "5":
		return m.open(int(name[0] - '1'))
	case "tab", "right":
		return m.open((m.tab + 1) % numTabs)
	case "shift+tab", "left":
		return m.open((m.tab + numTabs - 1) % numTabs)
	case "up", "k":
		m.page().move(m.list(), -1)
	case "down", "j":
		m.page().move(m.list(), 1)
	case "pgup", "ctrl+b":
		m.page().move(m.list(), -m.rows())
	case "pgdown", "ctrl+f":
		m.page().move(m.list(), m.rows())
	case "home", "g":
		m.page().move(m.list(), -1<<30)
	case "end", "G":
		m.page().move(m.list(), 1<<30)
	case "enter":
		return m.enter()
	case "esc":
		return m.back()
	case "/":
		m.typeFilter()
	case "<", ",":
		return m.sortBy(-1)
	case ">", ".":
		return m.sortBy(1)
	case "r":
		m.list().reverse = !m.list().reverse
		return m.refreshSessions()
	case "space":
		m.paused = !m.paused
	case "d":
		m.order("drain")
	case "m":
		m.order("maintenance")
	case "e":
		m.order("ready")
	case "w":
		m.typeWeight()
	case "x":
		m.kill()
	}
	return nil
}

// answer takes the key that answers a question.
func (m *Model) answer(name string) tea.Cmd {
	do := m.ask.do
	m.ask = nil
	if name == "y" || name == "Y" {
		m.note = "…"
		return do
	}
	m.note = "nothing is done"
	return nil
}

// edit takes a key that belongs to a prompt.
func (m *Model) edit(name, text string) {
	p := m.prompt
	switch name {
	case "enter", "esc":
		m.prompt = nil
		m.ask = p.done(p.text, name == "enter")
	case "backspace", "ctrl+h":
		if r := []rune(p.text); len(r) > 0 {
			p.text = string(r[:len(r)-1])
		}
	case "ctrl+u":
		p.text = ""
	default:
		m.typed(text)
		return
	}
	if p.change != nil && name != "esc" {
		p.change(p.text)
	}
}

// typed adds text to a prompt.
func (m *Model) typed(text string) {
	if p := m.prompt; p != nil && len(p.text)+len(text) <= 200 {
		p.text += strings.Map(func(r rune) rune {
			if unicode.IsPrint(r) {
				return r
			}
			return -1
		}, text)
		if p.change != nil {
			p.change(p.text)
		}
	}
}

func (m *Model) typeFilter() {
	l := m.list()
	was := l.filter
	m.prompt = &prompt{label: "filter: ", text: was, change: func(text string) { l.filter = text },
		done: func(text string, ok bool) *question {
			if l.filter = text; !ok {
				l.filter = was
			}
			return nil
		}}
}

// open shows a tab.
func (m *Model) open(tab int) tea.Cmd {
	m.tab = tab
	return m.refreshSessions()
}

// enter goes from a pool to its backends, and from a backend to its sessions.
func (m *Model) enter() tea.Cmd {
	switch m.tab {
	case tabPools:
		if p := m.pools().current(m.list()); p != nil {
			m.pool, m.of = p.Name, ""
			return m.open(tabBackends)
		}
	case tabBackends:
		if b := m.backends().current(m.list()); b != nil {
			m.pool, m.of, m.sessions, m.total = b.pool, b.Address, nil, -1
			return m.open(tabSessions)
		}
	}
	return nil
}

// back undoes the last narrowing: the filter, then the backend, then the pool.
func (m *Model) back() tea.Cmd {
	switch l := m.list(); {
	case l.filter != "":
		l.filter = ""
	case m.of != "":
		m.of = ""
		if m.tab == tabSessions {
			return m.open(tabBackends)
		}
	case m.pool != "":
		m.pool = ""
	}
	return m.refreshSessions()
}

// sortBy goes to another column; before the first is the order in which rows come.
func (m *Model) sortBy(by int) tea.Cmd {
	l, n := m.list(), len(m.page().titles())+1
	l.sort = (l.sort+1+by+n)%n - 1
	l.reverse = false
	return m.refreshSessions()
}
