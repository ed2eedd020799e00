package config

import (
	"slices"
	"strconv"
	"strings"
)

// The toml package tells the line of a syntax error and of nothing else. scan reads the text once more, only to note on
// which line every key and every element of an array stands. It understands as much of toml as it takes to know where a
// value ends, and leaves judging values to the decoder: for every text that the decoder accepts, scan sees the same keys
// in the same order (FuzzScan holds it to that); at the first thing it cannot follow it stops quietly, because there the
// decoder has stopped too.
//
// scan runs first and also keeps the decoder from texts it cannot bear. That one recurses for nested arrays and tables
// (a stack overflow cannot be recovered from) and remembers the whole path of every key.
const (
	maxNesting = 32      // arrays and inline tables in each other; the shape in config.go, with maxMatchDepth, needs 21
	maxPath    = 256     // bytes of a key with all its parents, one more per part
	maxNodes   = 1 << 20 // keys and array elements in a file
)

// node is where one key or one array element stands, and what is inside of it.
type node struct {
	line   int32 // from 1
	offset int32 // bytes from the beginning of the text
	named  bool  // by a header or an assignment of its own, not only on the way to something inside
	closed bool  // set by an assignment: nothing can be added from outside
	keys   map[string]*node
	elems  []*node
}

// child returns the node of a key, or nil. A nil node has no children.
func (n *node) child(key string) *node {
	if n == nil {
		return nil
	}
	return n.keys[key]
}

// elem returns the node of an array element, or nil.
func (n *node) elem(i int) *node {
	if n == nil || i >= len(n.elems) {
		return nil
	}
	return n.elems[i]
}

// inner returns the table that keys below n go to: the newest one when n is an array of tables, else n itself.
func (n *node) inner() *node {
	if len(n.elems) > 0 {
		return n.elems[len(n.elems)-1]
	}
	return n
}

// twice is a key that was given a value although it had one. The decoder (v1.6.0) refuses most of that, but forgets one
// of the two in silence where the first is a table that nothing names by itself or an array of tables (a.b = 1 and then
// a = 2), or where an array gets keys (a = [1] and then a.b = 2).
type twice struct {
	path          string
	first, second node // as places only
}

// scanner walks over text. Its methods that return a bool say whether the scan can go on.
type scanner struct {
	text string
	pos  int
	line int

	root  *node
	again []twice

	path      []string // of the last [header], and of the key being read
	pathBytes int
	assigning int // values that are being read, in each other: then path is of a key, not of a table
	nesting   int
	nodes     int
	tooMuch   string // the limit that ended the scan, in words

	seen func(path []string) // called for each key in order; for tests, may be nil

	// For those who change or show the text; nil for those who read it.
	parts *parts
}

// parts is what stands where in a text.
type parts struct {
	statements []statement
	values     []part // that are no arrays and no tables
	comments   []span
}

// statement is a [header], or a key with its value.
type statement struct {
	path    []string // whole
	context int      // how much of path the header above has said
	header  bool
	span    // from its first byte to the end of its line, the comment included and the newline not
	value   span
}

// part is a value, or an element of one, below a key.
type part struct {
	span
	path []string // of the key, whole
}

// span is a piece of the text, in bytes.
type span struct {
	from, to int
	key      string
}

// partsOf returns what stands where in a text that is TOML.
func partsOf(text string) *parts {
	s := &scanner{text: text, line: 1, root: &node{line: 1}, parts: new(parts)}
	s.document()
	return s.parts
}

// scan returns the root of the tree of positions. It never fails: after a limit (tooMuch) or a syntax error the tree
// holds what came before, and pos and line tell where that was.
func scan(text string, seen func(path []string)) *scanner {
	s := &scanner{text: text, line: 1, root: &node{line: 1}, seen: seen}
	s.document()
	return s
}

func (s *scanner) document() {
	ctx := s.root
	for {
		s.skipLines()
		c, more := s.peek()
		if !more {
			return
		}
		start, ok := s.pos, false
		if c == '[' {
			ctx, ok = s.table()
			s.state(statement{path: slices.Clone(s.path), context: len(s.path), header: true})
		} else {
			ok = s.assignment(ctx)
		}
		if !ok || !s.endOfLine() {
			return
		}
		if s.parts != nil {
			s.parts.statements[len(s.parts.statements)-1].span = span{from: start, to: s.pos}
		}
	}
}

// table reads [a.b] or [[a.b]] and returns the node that the lines below it fill.
func (s *scanner) table() (*node, bool) {
	at := s.here()
	s.pos++
	array := s.take('[')
	parts, ok := s.keyUntil(']')
	if !ok || array && !s.take(']') {
		return nil, false
	}
	s.path, s.pathBytes = s.path[:0], 0
	n := s.root
	for _, part := range parts {
		if !s.push(part) {
			return nil, false
		}
		if n, ok = s.descend(n.inner(), part, at); !ok {
			return nil, false
		}
		if n.closed {
			s.repeat(n, at)
		}
	}
	s.report()
	if array {
		n.name(at)
		return s.append(n, at)
	}
	if n.named && !n.closed {
		s.repeat(n, at)
	}
	n.name(at)
	return n, true
}

// assignment reads key = value inside of ctx.
func (s *scanner) assignment(ctx *node) bool {
	at := s.here()
	outer, outerBytes := len(s.path), s.pathBytes
	parts, ok := s.keyUntil('=')
	if !ok {
		return false
	}
	n, last := ctx, len(parts)-1
	for i, part := range parts {
		if !s.push(part) {
			return false
		}
		if old := n.keys[part]; old != nil && (i == last || old.closed) {
			s.repeat(old, at)
			delete(n.keys, part)
		}
		if n, ok = s.descend(n, part, at); !ok {
			return false
		}
		if i < last {
			n = n.inner()
		}
	}
	n.named, n.closed = true, true
	s.report()
	s.skipBlanks()
	from := s.pos
	s.assigning++
	if !s.value(n) {
		return false
	}
	s.assigning--
	if s.nesting == 0 {
		to := from + len(strings.TrimRight(s.text[from:s.pos], " \t"))
		s.state(statement{path: slices.Clone(s.path), context: outer, value: span{from: from, to: to}})
	}
	s.path, s.pathBytes = s.path[:outer], outerBytes
	return true
}

// state notes a statement, for those who want to know.
func (s *scanner) state(st statement) {
	if s.parts != nil {
		s.parts.statements = append(s.parts.statements, st)
	}
}

// value reads over one value and hangs what is inside of it under n.
func (s *scanner) value(n *node) bool {
	s.skipBlanks()
	c, _ := s.peek()
	from := s.pos
	ok := false
	switch {
	case c == '[':
		return s.array(n)
	case c == '{':
		return s.inlineTable(n)
	case strings.HasPrefix(s.text[s.pos:], `"""`), strings.HasPrefix(s.text[s.pos:], `'''`):
		ok = s.longString(c)
	case c == '"', c == '\'':
		ok = s.shortString(c)
	default:
		ok = s.scalar()
	}
	if s.parts != nil {
		to := from + len(strings.TrimRight(s.text[from:s.pos], " \t"))
		s.parts.values = append(s.parts.values, part{span{from: from, to: to}, slices.Clone(s.path)})
	}
	return ok
}

func (s *scanner) array(n *node) bool {
	if !s.enter() {
		return false
	}
	for {
		s.skipLines()
		if s.take(']') {
			s.nesting--
			return true
		}
		elem, ok := s.append(n, s.here())
		if !ok || !s.value(elem) {
			return false
		}
		s.skipLines()
		if c, _ := s.peek(); c != ']' && !s.take(',') {
			return false
		}
	}
}

func (s *scanner) inlineTable(n *node) bool {
	if !s.enter() {
		return false
	}
	for {
		s.skipLines()
		if s.take('}') {
			s.nesting--
			return true
		}
		if !s.assignment(n) {
			return false
		}
		s.skipLines()
		if c, _ := s.peek(); c != '}' && !s.take(',') {
			return false
		}
	}
}

// enter reads over the bracket that opens an array or an inline table.
func (s *scanner) enter() bool {
	s.pos++
	if s.nesting++; s.nesting > maxNesting {
		s.tooMuch = "arrays and tables nested more than " + strconv.Itoa(maxNesting) + " deep"
		return false
	}
	return true
}

// descend returns the node of a key of n, made now if it is new.
func (s *scanner) descend(n *node, key string, at node) (*node, bool) {
	if c := n.keys[key]; c != nil {
		return c, true
	}
	if !s.count() {
		return nil, false
	}
	if n.keys == nil {
		n.keys = make(map[string]*node)
	}
	c := &node{line: at.line, offset: at.offset}
	n.keys[key] = c
	return c, true
}

func (s *scanner) append(n *node, at node) (*node, bool) {
	if !s.count() {
		return nil, false
	}
	e := &node{line: at.line, offset: at.offset}
	n.elems = append(n.elems, e)
	return e, true
}

// repeat notes that the key being read is one that n stands for already.
func (s *scanner) repeat(n *node, at node) {
	s.again = append(s.again, twice{s.dotted(), *n, at})
}

// name moves n to the first line that names it: [a] says more about a than an [a.b] before it.
func (n *node) name(at node) {
	if !n.named {
		n.line, n.offset, n.named = at.line, at.offset, true
	}
}

func (s *scanner) count() bool {
	if s.nodes++; s.nodes > maxNodes {
		s.tooMuch = "more than " + strconv.Itoa(maxNodes) + " keys and array elements"
		return false
	}
	return true
}

func (s *scanner) push(part string) bool {
	s.path = append(s.path, part)
	if s.pathBytes += len(part) + 1; s.pathBytes > maxPath {
		s.longPath()
		return false
	}
	return true
}

func (s *scanner) longPath() {
	s.tooMuch = "a key that is, with its parents, longer than " + strconv.Itoa(maxPath) + " bytes"
}

func (s *scanner) report() {
	if s.seen != nil {
		s.seen(s.path)
	}
}

// dotted returns the path of the key being read.
func (s *scanner) dotted() string {
	path := ""
	for _, part := range s.path {
		path = joinKey(path, part)
	}
	return path
}

func (s *scanner) here() node { return node{line: int32(s.line), offset: int32(s.pos)} }
