// Who is connected now, and ending some of them.

import { useEffect, useRef, useState } from 'preact/hooks'
import { call, encode, get, Problem, whyNot } from '../api'
import { exact, plural, span } from '../format'
import { now, sample, stale, status, wantBackends } from '../live'
import { href, place, setQuery } from '../router'
import type { Session, SessionPage } from '../types'
import { Button, Empty, Failure, Heading } from '../ui/basics'
import { Confirm } from '../ui/dialog'
import { Size } from '../ui/num'
import { Beyond } from '../ui/role'
import { Table, type Column } from '../ui/table'

const pageSize = 100
const filters = ['protocol', 'frontend', 'pool', 'backend', 'client'] as const
type Filters = { [K in (typeof filters)[number]]?: string }
const sorts = { age: 'Oldest', idle: 'Idle longest', bytes: 'Most bytes', client: 'Client', none: 'As they come' }

export function Sessions() {
  useEffect(() => wantBackends([]), [])
  const query = place.value.query
  const filter: Filters = Object.fromEntries(filters.map((f) => [f, query.get(f) ?? '']).filter(([, v]) => v))
  const sort = query.get('by') ?? 'age', from = query.get('from') ?? ''
  // Sorted pages are counted from the first; unsorted ones, for whoever has too many to sort, each know the next.
  const order: Record<string, string> = sort === 'none' ? (from ? { cursor: from } : {}) : { sort, offset: from || '0' }
  const address = '?' + new URLSearchParams({ ...filter, ...order, limit: String(pageSize) }).toString()
  const [list, setList] = useState<SessionPage | null>(null), [failure, setFailure] = useState<unknown>(null)
  const [victim, choose] = useState<Session | null>(null), [total, askAll] = useState<number | null>(null)
  const latest = useRef('')
  latest.current = address
  const look = async (): Promise<void> => {
    try {
      const l = await get<SessionPage>('/sessions' + address)
      if (latest.current !== address) return // a filter was changed meanwhile
      setList(l)
      setFailure(null)
    } catch (e) {
      if (latest.current === address) setFailure(e)
    }
  }
  const beat = Math.floor(now.value.getTime() / 2000)
  useEffect(() => { if (!stale.value && !document.hidden) void look() }, [address, beat])
  const offset = sort === 'none' ? 0 : Number(from), more = list && (list.next ?? ((list.total ?? 0) > offset + pageSize ? String(offset + pageSize) : ''))
  const why = whyNot('operate'), filtered = Object.keys(filter).length > 0
  const askKill = async (): Promise<void> => {
    try {
      askAll((await call<{ killed: number }>('POST', '/sessions/kill', { ...filter, ...(filtered ? {} : { all: true }), dry_run: true })).killed)
    } catch (e) {
      setFailure(e)
    }
  }
  if (failure instanceof Problem && failure.status === 404) {
    return <><Heading title="Sessions" /><Empty title="This awe4lb does not list its sessions."><p>{failure.message}</p></Empty></>
  }
  return (
    <>
      <Heading title="Sessions">
        {!why && <Button kind="danger" whyNot={list?.total === 0 ? 'There is nothing to end.' : ''} onClick={() => void askKill()}>{filtered ? 'End these' : 'End all'}</Button>}
      </Heading>
      <Beyond operate={['ending sessions']} />
      <FilterBar filter={filter} sort={sort} />
      <Failure of={failure} />
      <p class="muted" role="status">{list ? told(list, offset, filtered) : 'Asking for sessions'}</p>
      {list && (list.sessions.length === 0
        ? <Empty title={filtered ? 'No session is like that.' : 'Nobody is connected.'}>
          <p>{filtered ? <a href="#/sessions">Show all</a> : <>Sessions and UDP flows are listed here while they last. {(sample.value?.frontends.length ?? 0) > 0 && <>Connect to one of the <a href="#/frontends">frontends</a>.</>}</>}</p>
        </Empty>
        : <div class={stale.value ? 'stale' : undefined}><Table label="Sessions" rows={list.sessions} columns={columns(choose, !why)} rowKey={(s) => s.id} remote /></div>)}
      {(more || from) && (
        <p class="buttons">
          {from && <Button onClick={() => history.back()}>Back</Button>}
          {more && <a class="button plain" href={href(['sessions'], { ...filter, ...(sort !== 'age' ? { by: sort } : {}), from: more })}>Next {pageSize}</a>}
        </p>
      )}
      {victim && (
        <Confirm title={`End the session of ${victim.client}?`} act="End it" danger whyNot={why} onClose={() => choose(null)} onAct={() => call('DELETE', `/sessions/${encode(victim.id)}`).then(look)}>
          <p>{victim.protocol === 'udp' ? 'The flow is forgotten: the next datagram of the client begins another.' : `Client and backend ${victim.backend} each get a reset. What is under way is lost.`}</p>
        </Confirm>
      )}
      {total !== null && (
        <Confirm
          title={`End ${plural(total, 'session')}?`} act={`End ${exact(total)}`} danger whyNot={why || (total === 0 ? 'There is nothing to end.' : '')} typed={String(total)} onClose={() => askAll(null)}
          onAct={() => call('POST', '/sessions/kill', { ...filter, ...(filtered ? {} : { all: true }) }).then(look)}
        >
          <p>{filtered ? `All with ${Object.entries(filter).map(([k, v]) => `${k} ${v}`).join(', ')}` : 'All there are'}, those included that come until you confirm. Clients and backends get a reset; what is under way is lost.</p>
        </Confirm>
      )}
    </>
  )
}

// told says how many there are.
function told(l: SessionPage, offset: number, filtered: boolean): string {
  const n = l.sessions.length, such = filtered ? ' like that' : ''
  if (l.total === undefined) return `${plural(n, 'session')} on this page${such}`
  return l.total > n ? `${exact(offset + 1)} to ${exact(offset + n)} of ${plural(l.total, 'session')}${such}` : plural(l.total, 'session') + such
}

function FilterBar({ filter, sort }: { filter: Filters; sort: string }) {
  const st = status.value
  const set = (key: string) => (v: string): void => setQuery({ [key]: v, from: '' })
  const pool = st?.pools.find((p) => p.name === filter.pool)
  return (
    <div class="filters" role="search">
      <Client value={filter.client ?? ''} set={set('client')} />
      <Choice label="Protocol" value={filter.protocol} of={['tcp', 'udp']} set={set('protocol')} />
      <Choice label="Frontend" value={filter.frontend} of={st?.frontends.map((f) => f.name) ?? []} set={set('frontend')} />
      <Choice label="Pool" value={filter.pool} of={st?.pools.map((p) => p.name) ?? []} set={(v) => setQuery({ pool: v, backend: '', from: '' })} />
      <Choice label="Backend" value={filter.backend} of={(pool ? [pool] : st?.pools ?? []).flatMap((p) => p.backends.map((b) => b.address))} set={set('backend')} />
      <label><span>Order</span><select value={sort} onChange={(e) => setQuery({ by: e.currentTarget.value === 'age' ? '' : e.currentTarget.value, from: '' })}>{Object.entries(sorts).map(([k, title]) => <option key={k} value={k}>{title}</option>)}</select></label>
    </div>
  )
}

// Client keeps what is typed until it is meant: the view around it is drawn anew each second.
function Client({ value, set }: { value: string; set: (v: string) => void }) {
  const [typed, setTyped] = useState(value)
  useEffect(() => setTyped(value), [value])
  const mean = (): void => set(typed.trim())
  return (
    <label><span>Client</span><input
      type="search" data-filter aria-keyshortcuts="/" placeholder="prefix" title="an address or a prefix, such as 10.1.0.0/16" autoComplete="off" spellcheck={false}
      value={typed} onInput={(e) => setTyped(e.currentTarget.value)} onChange={mean} onKeyDown={(e) => { if (e.key === 'Enter') mean() }}
    /></label>
  )
}

function Choice({ label, value = '', of, set }: { label: string; value: string | undefined; of: string[]; set: (v: string) => void }) {
  const all = [...new Set(value && !of.includes(value) ? [value, ...of] : of)]
  return (
    <label><span>{label}</span>
      <select value={value} onChange={(e) => set(e.currentTarget.value)}><option value="">all</option>{all.map((v) => <option key={v}>{v}</option>)}</select>
    </label>
  )
}

const columns = (kill: (s: Session) => void, operate: boolean): Column<Session>[] => [
  { key: 'client', title: 'Client', cell: (s) => <><span class="strong" title={s.proxy ? `as ${s.proxy} says` : undefined}>{s.client || 'unix socket'}</span><span class="narrow muted">{s.frontend} → {s.backend}</span></> },
  { key: 'state', title: 'State', width: '130px', from: 'wide', cell: (s) => `${s.protocol} ${s.state}` },
  { key: 'frontend', title: 'Frontend', width: '12%', from: 'wide', cell: (s) => <a href={href(['frontends', s.frontend])}>{s.frontend}</a> },
  { key: 'backend', title: 'Backend', width: '27%', from: 'middle', cell: (s) => (s.pool ? <a href={href(['pools', s.pool], s.backend ? { backend: s.backend } : {})} title={`${s.pool} / ${s.backend ?? ''}`}>{s.pool}{s.backend ? ` / ${s.backend}` : ''}</a> : <span class="muted">none yet</span>) },
  { key: 'sni', title: 'Name', width: '11%', from: 'roomy', cell: (s) => <span title={s.tls}>{s.sni ?? ''}{s.tls ? <span class="muted"> {s.tls}</span> : null}</span> },
  { key: 'age', title: 'Age', width: '76px', number: true, cell: (s) => <span title={`${exact(s.age_seconds)} seconds`}>{span(s.age_seconds)}</span> },
  { key: 'idle', title: 'Idle', width: '68px', number: true, from: 'middle', cell: (s) => <span title={`${exact(s.idle_seconds)} seconds`}>{span(s.idle_seconds)}</span> },
  { key: 'c2b', title: 'To backend', width: '96px', number: true, from: 'roomy', cell: (s) => <Size n={s.bytes.c2b} /> },
  { key: 'b2c', title: 'To client', width: '96px', number: true, from: 'middle', cell: (s) => <Size n={s.bytes.b2c} /> },
  ...(operate ? [{ key: 'act', title: '', width: '64px', cell: (s: Session) => <Button small label={`End the session of ${s.client}`} onClick={() => kill(s)}>End</Button> }] : []),
]

