// All pools, a row each.

import { useEffect, useState } from 'preact/hooks'
import { exact } from '../format'
import { may } from '../api'
import { sample, stale, status, wantBackends } from '../live'
import { href, place, setQuery } from '../router'
import type { Pool, PoolSample } from '../types'
import { Button, Empty, Heading } from '../ui/basics'
import { Filter } from '../ui/filter'
import { Count, Rate, SizeRate } from '../ui/num'
import { Beyond } from '../ui/role'
import { Mark } from '../ui/state'
import { Table, type Column } from '../ui/table'
import { NewTable } from './tables'

type Row = Pool & { live: PoolSample | undefined }

const columns: Column<Row>[] = [
  { key: 'name', title: 'Pool', sort: (r) => r.name, cell: (r) => <><a class="strong" href={href(['pools', r.name])}>{r.name}</a><span class="narrow"><Ups of={r} /></span></> },
  { key: 'up', title: 'Backends', width: '180px', from: 'middle', sort: (r) => (r.live?.up ?? 0) / Math.max(1, r.backends.length), cell: (r) => <Ups of={r} /> },
  { key: 'policy', title: 'Policy', width: '130px', from: 'wide', sort: (r) => r.policy, cell: (r) => r.policy },
  { key: 'open', title: 'Open', width: '72px', number: true, sort: (r) => r.live?.open ?? 0, cell: (r) => <Count n={r.live?.open ?? 0} what="sessions and flows" /> },
  { key: 'new', title: 'New', width: '80px', number: true, sort: (r) => r.live?.new_per_second ?? 0, cell: (r) => <Rate n={r.live?.new_per_second} /> },
  { key: 'c2b', title: 'To backends', width: '108px', number: true, from: 'middle', sort: (r) => r.live?.c2b ?? 0, cell: (r) => <SizeRate n={r.live?.c2b} /> },
  { key: 'b2c', title: 'To clients', width: '104px', number: true, from: 'middle', sort: (r) => r.live?.b2c ?? 0, cell: (r) => <SizeRate n={r.live?.b2c} /> },
  { key: 'retries', title: 'Retries', hint: 'connections that went to another backend, since the start', width: '96px', number: true, from: 'roomy', sort: (r) => r.retries, cell: (r) => <Count n={r.retries} what="since the start" /> },
  { key: 'nobody', title: 'No backend', hint: 'clients for whom there was no backend, since the start', width: '112px', number: true, from: 'wide', sort: (r) => r.no_backend, cell: (r) => <Count n={r.no_backend} what="since the start" /> },
  { key: 'full', title: 'Full', hint: 'clients for whom there was no place under max_connections of the pool or of its backends, since the start', width: '80px', number: true, from: 'wide', sort: (r) => r.pool_limit + r.backend_limit, cell: (r) => <Count n={r.pool_limit + r.backend_limit} what="since the start" /> },
]

function Ups({ of: r }: { of: Row }) {
  const up = r.live?.up ?? 0, down = r.live?.down ?? 0, other = r.live?.other ?? 0, total = r.backends.length
  const t = total === 0 ? 'off' : up === 0 ? 'bad' : down > 0 ? 'warn' : 'ok'
  return <span class={`state ${t}`}><Mark tone={t} />{total === 0 ? 'none' : `${exact(up)} of ${exact(total)} up`}{down > 0 && up > 0 ? `, ${down} down` : ''}{other > 0 ? `, ${other} out` : ''}</span>
}

export function Pools() {
  useEffect(() => wantBackends([]), [])
  const [making, make] = useState(false)
  const st = status.value, q = place.value.query.get('q') ?? ''
  if (!st) return <Heading title="Pools" />
  const live = new Map(sample.value?.pools.map((p) => [p.name, p]))
  const rows = st.pools.filter((p) => p.name.toLowerCase().includes(q.toLowerCase())).map((p) => ({ ...p, live: live.get(p.name) }))
  return (
    <>
      <Heading title="Pools"><span class="row">{may('configure') && <Button onClick={() => make(true)}>New pool</Button>}<Filter value={q} onInput={(v) => setQuery({ q: v })} label="Filter pools" /></span></Heading>
      <Beyond configure={['making pools']} />
      {making && <NewTable kind="pool" onClose={() => make(false)} />}
      {st.pools.length === 0
        ? <Empty title="No pools are configured."><p>A pool is a set of backends. Add one in <a href="#/configuration">Configuration</a>.</p></Empty>
        : rows.length === 0
          ? <Empty title={`No pool has “${q}” in its name.`}><p><a href="#/pools">Show all</a></p></Empty>
          : <div class={stale.value ? 'stale' : undefined}><Table label="Pools" rows={rows} columns={columns} rowKey={(r) => r.name} /></div>}
    </>
  )
}
