// The limits there are: which are full or met now, and who is nearest to what one source may have.

import { useEffect, useRef, useState } from 'preact/hooks'
import { call, get, whyNot } from '../api'
import { exact, plural } from '../format'
import { now, stale, wantBackends } from '../live'
import { href, place, setQuery } from '../router'
import type { BusySource, Limit } from '../types'
import { Button, Empty, Failure, Heading } from '../ui/basics'
import { Confirm } from '../ui/dialog'
import { Filter } from '../ui/filter'
import { Count, Rate } from '../ui/num'
import { Mark, type Tone } from '../ui/state'
import { Beyond } from '../ui/role'
import { Table, type Column } from '../ui/table'

type Row = Limit & { rate: number | undefined } // times it was met, per second, since the look before

const keyOf = (l: Limit): string => `${l.scope} ${l.name ?? ''} ${l.limit}`
const isFull = (l: Limit): boolean => l.now !== undefined && l.now >= l.value

// standing says how a limit is: full and met now are what somebody looks for.
function standing(r: Row): { tone: Tone; word: string; rank: number } {
  if (isFull(r)) return { tone: 'bad', word: 'full', rank: 4 }
  if (r.rate) return { tone: 'bad', word: 'met now', rank: 3 }
  if (r.now !== undefined && r.now >= 0.8 * r.value) return { tone: 'warn', word: 'near', rank: 2 }
  if (r.hits) return { tone: 'warn', word: 'was met', rank: 1 }
  return { tone: 'ok', word: 'room', rank: 0 }
}

function Standing({ of: r }: { of: Row }) {
  const s = standing(r)
  return <span class={`state ${s.tone}`}><Mark tone={s.tone} />{s.word}</span>
}

// Gauge is how full something is, a bar beside the words.
function Gauge({ now, of: most, what = '' }: { now: number | undefined; of: number; what?: string }) {
  if (now === undefined) return <span class="muted">{/per_(\w+)$/.exec(what)?.[0].replace('_', ' ') ?? 'per second'}</span>
  const share = Math.min(1, now / most)
  return (
    <span class="gauge" title={`${exact(now)} of ${exact(most)}`}>
      <svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect class="all" width="100" height="8" /><rect class={share >= 1 ? 'bad' : share >= 0.8 ? 'warn' : 'ok'} width={100 * share} height="8" /></svg>
      <span class="number">{Math.floor(100 * share)} %</span>
    </span>
  )
}

function Of({ of: r }: { of: Row }) {
  const [pool, ...address] = (r.name ?? '').split('/')
  switch (r.scope) {
    case 'frontend': return <a href={href(['frontends', r.name!])}>{r.name}</a>
    case 'pool': return <a href={href(['pools', r.name!])}>{r.name}</a>
    case 'backend': return <a href={href(['pools', pool!], { backend: address.join('/') })}>{pool} / {address.join('/')}</a>
  }
  return <span class="muted">the process</span>
}

const columns: Column<Row>[] = [
  {
    key: 'limit', title: 'Limit', sort: (r) => r.limit,
    cell: (r) => <><span class="strong" title={r.limit}>{r.limit}</span><span class="narrow"><Standing of={r} /> {r.name ?? ''}</span></>,
  },
  { key: 'state', title: 'State', width: '112px', from: 'middle', sort: (r) => standing(r).rank, cell: (r) => <Standing of={r} /> },
  { key: 'of', title: 'Of', width: '22%', from: 'middle', sort: (r) => `${r.scope} ${r.name ?? ''}`, cell: (r) => <Of of={r} /> },
  { key: 'now', title: 'Now', width: '72px', number: true, sort: (r) => r.now ?? -1, cell: (r) => <>{r.now === undefined ? <span class="muted">–</span> : <Count n={r.now} />}<span class="narrow muted">of <Count n={r.value} /></span></> },
  { key: 'value', title: 'At most', width: '84px', number: true, from: 'middle', sort: (r) => r.value, cell: (r) => <Count n={r.value} /> },
  { key: 'full', title: 'Full', width: '160px', from: 'wide', sort: (r) => (r.now === undefined ? -1 : r.now / r.value), cell: (r) => <Gauge now={r.now} of={r.value} what={r.limit} /> },
  { key: 'rate', title: 'Met now', hint: 'times it was met, per second', width: '100px', number: true, from: 'wide', sort: (r) => r.rate ?? -1, cell: (r) => <Rate n={r.rate} /> },
  { key: 'hits', title: 'Met', hint: 'times it was met since the start; several limits may share a counter', width: '56px', number: true, sort: (r) => r.hits ?? -1, cell: (r) => (r.hits === undefined ? <span class="muted" title="not counted">–</span> : <Count n={r.hits} what="times since the start" />) },
]

export function Limits() {
  useEffect(() => wantBackends([]), [])
  const [rows, setRows] = useState<Row[] | null>(null), [sources, setSources] = useState<BusySource[] | null>(null), [failure, setFailure] = useState<unknown>(null)
  const [victim, choose] = useState<{ source: BusySource; count: number } | null>(null)
  const before = useRef({ at: 0, hits: new Map<string, number>() })
  const look = async (): Promise<void> => {
    try {
      const [{ limits }, { sources }] = await Promise.all([get<{ limits: Limit[] }>('/limits'), get<{ sources: BusySource[] }>('/limits/sources?limit=50')])
      const at = performance.now(), was = before.current, seconds = (at - was.at) / 1000
      setRows(limits.map((l) => {
        const old = was.hits.get(keyOf(l))
        return { ...l, rate: l.hits === undefined || old === undefined || l.hits < old ? undefined : (l.hits - old) / seconds }
      }))
      before.current = { at, hits: new Map(limits.flatMap((l) => (l.hits === undefined ? [] : [[keyOf(l), l.hits] as const]))) }
      setSources(sources)
      setFailure(null)
    } catch (e) {
      setFailure(e)
    }
  }
  const beat = Math.floor(now.value.getTime() / 2000)
  useEffect(() => { if (!stale.value && !document.hidden) void look() }, [beat])
  const query = place.value.query.get('q') ?? '', q = query.toLowerCase(), why = whyNot('operate')
  const shown = (rows ?? []).filter((r) => `${r.scope} ${r.name ?? ''} ${r.limit} ${standing(r).word}`.toLowerCase().includes(q))
  const full = (rows ?? []).filter(isFull), met = (rows ?? []).filter((r) => r.rate)
  const ask = async (source: BusySource): Promise<void> => {
    try {
      choose({ source, count: (await call<{ killed: number }>('POST', '/sessions/kill', { frontend: source.frontend, client: source.source, dry_run: true })).killed })
    } catch (e) {
      setFailure(e)
    }
  }
  return (
    <>
      <Heading title="Limits"><Filter value={query} onInput={(v) => setQuery({ q: v })} label="Filter limits" /></Heading>
      <Beyond operate={[(sources ?? []).length > 0 && 'ending sessions']} />
      <Failure of={failure} />
      {rows && <Sentence full={full} met={met} all={rows} />}
      {rows && (shown.length === 0
        ? <Empty title={q ? `No limit has “${q}”.` : 'No limits are set.'}>{q ? <p><a href="#/limits">Show all</a></p> : null}</Empty>
        : <div class={stale.value ? 'stale' : undefined}><Table label="Limits" rows={shown} columns={columns} rowKey={keyOf} sort="-state" /></div>)}
      {sources && (
        <section aria-labelledby="sources">
          <h2 id="sources">Sources nearest to what one may have</h2>
          {sources.length === 0
            ? <Empty title="No source has sessions where sources have a limit."><p><code>max_connections_per_source</code> of a frontend, and <code>udp.max_flows_per_source</code>, say what one address or prefix may have at once.</p></Empty>
            : <div class={stale.value ? 'stale' : undefined}><Table label="Sources" rows={sources} columns={sourceColumns((s) => void ask(s), !why)} rowKey={(s) => s.frontend + ' ' + s.source} remote /></div>}
        </section>
      )}
      {victim && (
        <Confirm
          title={`End the sessions of ${victim.source.source}?`} act={`End ${exact(victim.count)}`} danger typed={String(victim.count)} onClose={() => choose(null)}
          whyNot={why || (victim.count === 0 ? 'It has none any more.' : '')}
          onAct={() => call('POST', '/sessions/kill', { frontend: victim.source.frontend, client: victim.source.source }).then(look)}
        >
          <p>{plural(victim.count, 'session')} at {victim.source.frontend}, those included that come until you confirm. Client and backends get a reset; what is under way is lost. Nothing keeps it from coming again: <code>access</code> rules of the frontend do.</p>
        </Confirm>
      )}
    </>
  )
}

// Sentence says what is limited now, in words.
function Sentence({ full, met, all }: { full: Row[]; met: Row[]; all: Row[] }) {
  const name = (l: Limit): string => `${l.limit}${l.name ? ` of ${l.name}` : ''}`
  const words = [
    full.length ? `${plural(full.length, 'limit')} full: ${full.slice(0, 3).map(name).join(', ')}` : '',
    met.length ? `met now: ${met.slice(0, 3).map((r) => `${name(r)}`).join(', ')}` : '',
  ].filter(Boolean).join('; ')
  const ever = all.filter((l) => l.hits).length
  const tone: Tone = words ? 'bad' : 'ok'
  return (
    <div class={`sentence ${tone}`} role="status">
      <p><Mark tone={tone} /> <span>{words ? words[0]!.toUpperCase() + words.slice(1) : ever ? `Nobody is limited now; ${plural(ever, 'limit')} met since the start` : 'Nobody is limited, and nobody was since the start'}.</span></p>
    </div>
  )
}

const sourceColumns = (end: (s: BusySource) => void, operate: boolean): Column<BusySource>[] => [
  { key: 'source', title: 'Source', cell: (s) => <><a class="strong" href={href(['sessions'], { client: s.source, frontend: s.frontend })}>{s.source}</a><span class="narrow muted">{s.frontend}</span></> },
  { key: 'frontend', title: 'Frontend', width: '22%', from: 'middle', cell: (s) => <a href={href(['frontends', s.frontend])}>{s.frontend}</a> },
  { key: 'open', title: 'Open', width: '84px', number: true, cell: (s) => <Count n={s.open} what="sessions and flows" /> },
  { key: 'most', title: 'At most', width: '84px', number: true, from: 'middle', cell: (s) => <Count n={s.limit} /> },
  { key: 'full', title: 'Full', width: '160px', from: 'middle', cell: (s) => <Gauge now={s.open} of={s.limit} /> },
  ...(operate ? [{ key: 'act', title: '', width: '64px', cell: (s: BusySource) => <Button small label={`End the sessions of ${s.source}`} onClick={() => end(s)}>End</Button> }] : []),
]
