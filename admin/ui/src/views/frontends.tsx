// All frontends, a row each.

import { useEffect, useState } from 'preact/hooks'
import { may } from '../api'
import { sample, stale, status, wantBackends } from '../live'
import { href, place, setQuery } from '../router'
import type { Frontend, FrontendSample } from '../types'
import { Button, Empty, Heading } from '../ui/basics'
import { Filter } from '../ui/filter'
import { Count, Rate, SizeRate } from '../ui/num'
import { Beyond } from '../ui/role'
import { Table, type Column } from '../ui/table'
import { NewTable } from './tables'

type Row = Frontend & { live: FrontendSample | undefined }

const kind = (f: Frontend): string => (f.tls ? 'tls' : f.protocol) + (f.retired ? ', removed' : '')

const columns: Column<Row>[] = [
  {
    key: 'name', title: 'Frontend', sort: (r) => r.name,
    cell: (r) => <><a class="strong" href={href(['frontends', r.name])}>{r.name}</a><span class="narrow muted">{kind(r)} {r.listeners[0]}</span></>,
  },
  { key: 'protocol', title: 'Protocol', width: '100px', from: 'middle', sort: kind, cell: kind },
  { key: 'listeners', title: 'Listens on', width: '22%', from: 'middle', sort: (r) => r.listeners[0] ?? '', cell: (r) => <span title={r.listeners.join(', ')}>{r.listeners[0] ?? 'nothing'}{r.listeners.length > 1 ? ` and ${r.listeners.length - 1} more` : ''}</span> },
  { key: 'pool', title: 'Leads to', width: '16%', from: 'wide', sort: (r) => r.pool ?? '', cell: (r) => <To of={r} /> },
  { key: 'open', title: 'Open', width: '72px', number: true, sort: (r) => r.live?.open ?? r.open, cell: (r) => <Count n={r.live?.open ?? r.open} what="sessions and flows" /> },
  { key: 'new', title: 'New', width: '80px', number: true, sort: (r) => r.live?.new_per_second ?? 0, cell: (r) => <Rate n={r.live?.new_per_second} /> },
  { key: 'c2b', title: 'To backends', width: '108px', number: true, from: 'wide', sort: (r) => r.live?.c2b ?? 0, cell: (r) => <SizeRate n={r.live?.c2b} /> },
  { key: 'b2c', title: 'To clients', width: '104px', number: true, from: 'middle', sort: (r) => r.live?.b2c ?? 0, cell: (r) => <SizeRate n={r.live?.b2c} /> },
]

function To({ of: f }: { of: Frontend }) {
  const pools = [...new Set([...(f.rules ?? []).map((r) => r.pool), ...(f.pool ? [f.pool] : [])])]
  if (pools.length === 0) return <span class="muted">no pool</span>
  return <>{pools.map((p, i) => <span key={p}>{i > 0 && ', '}<a href={href(['pools', p])}>{p}</a></span>)}</>
}

export function Frontends() {
  useEffect(() => wantBackends([]), [])
  const [making, make] = useState(false)
  const st = status.value, q = place.value.query.get('q') ?? ''
  if (!st) return <Heading title="Frontends" />
  const live = new Map(sample.value?.frontends.map((f) => [f.name, f]))
  const rows = st.frontends
    .filter((f) => `${f.name} ${kind(f)} ${f.listeners.join(' ')} ${f.pool ?? ''}`.toLowerCase().includes(q.toLowerCase()))
    .map((f) => ({ ...f, live: live.get(f.name) }))
  return (
    <>
      <Heading title="Frontends"><span class="row">{may('configure') && <Button onClick={() => make(true)}>New frontend</Button>}<Filter value={q} onInput={(v) => setQuery({ q: v })} label="Filter frontends" /></span></Heading>
      <Beyond configure={['making frontends']} />
      {making && <NewTable kind="frontend" onClose={() => make(false)} />}
      {st.frontends.length === 0
        ? <Empty title="No frontends are configured."><p>A frontend is where clients come. Add one in <a href="#/configuration">Configuration</a>.</p></Empty>
        : rows.length === 0
          ? <Empty title={`No frontend has “${q}”.`}><p><a href="#/frontends">Show all</a></p></Empty>
          : <div class={stale.value ? 'stale' : undefined}><Table label="Frontends" rows={rows} columns={columns} rowKey={(r) => r.name + (r.retired ? ' removed' : '')} /></div>}
    </>
  )
}
