// What is often changed of a pool or a frontend, and where it stands in the lines of its table, or would.

export interface Usual {
  table?: string // the one below, such as health
  key: string
  value: string // to begin with, as TOML
  means: string
  needs?: string // lines without which it makes no sense; for tests
}

// page.test.mjs puts each of them into a running configuration.
export const usual: Record<'pool' | 'frontend' | 'udp', Usual[]> = {
  pool: [
    { key: 'policy', value: '"leastconn"', means: 'who gets the next session: random, roundrobin, leastconn, leasttime, leastbandwidth, p2c, iphash or maglev' },
    { key: 'backends', value: '[]', means: 'a line for each: { address = "10.0.0.7:80", weight = 1, priority = 0, max_connections = 0 }' },
    { key: 'connect_timeout', value: '"1s"', means: 'for each attempt to connect' },
    { key: 'connect_attempts', value: '3', means: 'backends tried for one client' },
    { key: 'max_connections', value: '1000', means: 'sessions at once in the whole pool; 0 is no limit' },
    { key: 'panic_threshold', value: '50', means: 'percent that must be up for those that are down to be left out; 0 is off' },
    { key: 'on_down', value: '"cut"', means: 'sessions of a backend that goes down: keep, drain or cut' },
    { table: 'health', key: 'interval', value: '"2s"', means: 'between two checks of a backend' },
    { table: 'health', key: 'timeout', value: '"1s"', means: 'for one check' },
    { table: 'health', key: 'rise', value: '2', means: 'good checks in a row that bring it up' },
    { table: 'health', key: 'fall', value: '3', means: 'failed ones that take it down' },
    { table: 'queue', key: 'size', value: '100', means: 'sessions that wait where none is free' },
    { table: 'queue', key: 'timeout', value: '"5s"', means: 'how long each waits at most' },
    { table: 'outliers', key: 'failures', value: '5', means: 'in a row, after which a backend is not used for a time' },
  ],
  frontend: [
    { key: 'pool', value: '"NAME"', means: 'where sessions go when no route has them' },
    { key: 'max_connections', value: '1000', means: 'sessions at once; 0 is no limit' },
    { key: 'max_connections_per_source', value: '50', means: 'of one address' },
    { key: 'connection_rate', value: '500', means: 'new sessions a second; 0 is no limit' },
    { key: 'connection_rate_per_source', value: '20', means: 'of one address' },
    { key: 'bandwidth', value: '"100MiB"', means: 'bytes a second, each direction' },
    { key: 'idle_timeout', value: '"10m"', means: 'without a byte, after which a session ends' },
    { table: 'access', key: 'default', value: '"allow"', means: 'whom no rule has: allow or deny' },
    { table: 'access', key: 'rules', value: '[{ deny = ["192.0.2.0/24"] }]', means: 'the first that has a client decides: allow or deny' },
  ],
  udp: [
    { key: 'pool', value: '"NAME"', means: 'where datagrams go when no route has them' },
    { key: 'bandwidth', value: '"100MiB"', means: 'bytes a second, each direction' },
    { table: 'udp', key: 'idle_timeout', value: '"1m"', means: 'without a datagram, after which a flow ends' },
    { table: 'udp', key: 'max_flows', value: '65536', means: 'flows at once' },
    { table: 'udp', key: 'max_flows_per_source', value: '100', means: 'of one network' },
    { table: 'udp', key: 'new_flow_rate', value: '100', means: 'new flows a second of one network; 0 is no limit' },
    { table: 'access', key: 'default', value: '"allow"', means: 'whom no rule has: allow or deny' },
    { table: 'access', key: 'rules', value: '[{ deny = ["192.0.2.0/24"] }]', means: 'the first that has a client decides: allow or deny' },
  ],
}

// Outline is where headers and keys stand: 0-based lines by the path below the table, with NUL between its parts.
interface Outline { lines: string[]; headers: Map<string, number>; keys: Map<string, number> }

const partsOf = (key: string): string[] => (key.match(/"[^"]*"|'[^']*'|[^.\s"']+/g) ?? []).map((p) => p.replace(/^["']|["']$/g, ''))

// outline reads as much of TOML as it takes to find keys at the beginning of lines. Whoever writes one in the middle of a text over
// several lines is led astray; what is written is checked by the server all the same.
export function outline(text: string, path: [string, string]): Outline {
  const lines = text.split('\n'), headers = new Map<string, number>(), keys = new Map<string, number>()
  let below: string[] | null = null
  const relative = (p: string[]): string[] | null => (p[0] === path[0] && p[1] === path[1] ? p.slice(2) : null)
  lines.forEach((line, i) => {
    const header = /^\s*\[\[?([^[\]]+)\]\]?\s*(#.*)?$/.exec(line)
    if (header) {
      below = relative(partsOf(header[1]!))
      if (below && !headers.has(below.join('\0'))) headers.set(below.join('\0'), i)
      return
    }
    const key = /^\s*([\w"'.\s-]+?)\s*=/.exec(line)
    if (!key || !below) return
    const at = [...below, ...partsOf(key[1]!)].join('\0')
    if (!keys.has(at)) keys.set(at, i)
  })
  return { lines, headers, keys }
}

// lineOf returns the 1-based line on which u stands; 0: it does not.
export function lineOf(o: Outline, u: Usual): number {
  const own = o.keys.get(u.table ? `${u.table}\0${u.key}` : u.key)
  if (own !== undefined) return own + 1
  const inline = u.table ? o.keys.get(u.table) : undefined
  return inline !== undefined && new RegExp(`[{,\\s]${u.key}\\s*=`).test(o.lines[inline]!.split('#')[0]!) ? inline + 1 : 0
}

export interface Insertion { at: number; text: string; selected: [number, number]; line: number }

// insertionOf returns what to write, and where, so that u stands in the table; what is selected is its value.
export function insertionOf(o: Outline, u: Usual, path: [string, string]): Insertion {
  const start = (line: number): number => o.lines.slice(0, line).reduce((n, l) => n + l.length + 1, 0)
  const put = (at: number, before: string, key: string, after: string): Insertion => {
    const from = at + before.length + key.length + 3
    const line = o.lines.join('\n').slice(0, at).split('\n').length + before.split('\n').length - 1
    return { at, text: `${before}${key} = ${u.value}${after}`, selected: [from, from + u.value.length], line }
  }
  const name = (parts: string[]): string => parts.map((p) => (/^[\w-]+$/.test(p) ? p : JSON.stringify(p))).join('.')
  const below = (line: number, key: string): Insertion => (line + 1 < o.lines.length ? put(start(line + 1), '', key, '\n') : put(start(line) + o.lines[line]!.length, '\n', key, ''))
  const header = o.headers.get(u.table ?? '')
  if (header !== undefined) return below(header, u.key)
  if (!u.table) return put(0, `[${name(path)}]\n`, u.key, '\n')
  const inline = o.keys.get(u.table)
  if (inline !== undefined) {
    const brace = o.lines[inline]!.indexOf('{') + 1
    return put(start(inline) + brace, ' ', u.key, /^\s*\}/.test(o.lines[inline]!.slice(brace)) ? '' : ',')
  }
  for (const [key, line] of o.keys) if (key.startsWith(u.table + '\0') && o.headers.has('')) return below(line, `${u.table}.${u.key}`)
  const end = o.lines.join('\n').replace(/\n+$/, '').length
  return put(end, `\n\n[${name([...path, u.table])}]\n`, u.key, o.lines.at(-1) === '' ? '' : '\n')
}
