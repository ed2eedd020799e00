// One pool: its backends, and what can be done about them.

import { useEffect, useMemo, useRef, useState } from 'preact/hooks'
import { may } from '../api'
import { exact, plural } from '../format'
import { backendSamples, checkKey, checks, poolSample, stale, stateSince, status, wantBackends } from '../live'
import { go, href, place, setQuery } from '../router'
import { room } from '../screen'
import type { Backend, BackendSample, Check } from '../types'
import { Button, Empty, Facts, Heading } from '../ui/basics'
import { Filter } from '../ui/filter'
import { Count, Lasting, Latency, Rate, SizeRate } from '../ui/num'
import { Beyond } from '../ui/role'
import { Spark } from '../ui/spark'
import { State } from '../ui/state'
import { Table, type Column } from '../ui/table'
import { BackendDialog, OrderDialog, orders, possible, type Order } from './backend'
import { DiscoveryOf } from './discovery'
import { PersistenceOf } from './persistence'
import { AddBackend, RemoveBackend, RemoveTable } from './tables'
import { Weight } from './weight'

export type Row = Backend & { live: BackendSample | undefined; check: Check | undefined }

// Asked is what somebody is about to do: an order to a backend, or a look at it.
interface Asked { order: Order | 'look' | 'remove'; address: string }

// Kept is the row of a backend, and what it was made of.
interface Kept { row: Row; of: Backend; live: BackendSample | undefined; check: Check | undefined }

// rowOf returns the row that there was where nothing has changed: it need not be drawn anew.
function rowOf(kept: Map<string, Kept>, b: Backend, l: BackendSample | undefined, check: Check | undefined): Row {
  const was = kept.get(b.address)
  if (was && was.of === b && was.check === check && same(was.live, l)) return was.row
  const row = { ...b, state: l?.state ?? b.state, weight: l?.weight ?? b.weight, open: l?.open ?? b.open, live: l, check }
  kept.set(b.address, { row, of: b, live: l, check })
  return row
}

const shownOf = ['state', 'weight', 'open', 'new_per_second', 'c2b', 'b2c', 'errors_per_second', 'connect_p99'] as const
const same = (a: BackendSample | undefined, b: BackendSample | undefined): boolean => a === b || (a !== undefined && b !== undefined && shownOf.every((k) => a[k] === b[k]))

export function PoolView({ name }: { name: string }) {
  useEffect(() => wantBackends([name]), [name])
  const [asked, ask] = useState<Asked | null>(null)
  const [changing, change] = useState<'add' | 'remove' | null>(null)
  const operate = may('operate'), wide = room.value === 'wide'
  const shown = useMemo(() => columns(ask, operate, wide), [operate, wide])
  const kept = useRef(new Map<string, Kept>())
  const query = place.value.query, q = (query.get('q') ?? '').toLowerCase()
  const st = status.value, pool = st?.pools.find((p) => p.name === name)
  const opened = query.get('backend')
  useEffect(() => { if (opened) ask({ order: 'look', address: opened }) }, [opened])
  if (!st) return <Heading title={name} above={<a href="#/pools">Pools</a>} />
  if (!pool) {
    return (
      <>
        <Heading title={name} above={<a href="#/pools">Pools</a>} />
        <Empty title={`There is no pool “${name}”.`}><p>It may have been renamed or removed. <a href="#/pools">All pools</a></p></Empty>
      </>
    )
  }
  const live = backendSamples(name), sum = poolSample(name)
  const all = pool.backends.map((b) => rowOf(kept.current, b, live.get(b.address), checks.value.get(checkKey(name, b.address))))
  const rows = q ? all.filter((b) => `${b.address} ${b.state} ${b.zone ?? ''}`.toLowerCase().includes(q)) : all
  const chosen = asked && all.find((b) => b.address === asked.address)
  const leave = (): void => {
    ask(null)
    if (opened) setQuery({ backend: '' })
  }
  return (
    <>
      <Heading title={name} above={<a href="#/pools">Pools</a>}>
        <span class="row">
          {may('configure') && <>
            <Button onClick={() => go('pools', name, 'edit')}>Edit</Button>
            <Button onClick={() => change('add')}>Add backend</Button>
            <Button onClick={() => change('remove')}>Remove pool</Button>
          </>}
          <Filter value={query.get('q') ?? ''} onInput={(v) => setQuery({ q: v })} label="Filter backends" />
        </span>
      </Heading>
      <Beyond
        operate={['draining', 'maintenance', 'changing weights', pool.discovery && 'asking sources now', pool.persistence && 'forgetting clients']}
        configure={['editing the pool', 'adding and removing backends']}
      />
      <Facts of={[
        ['Policy', pool.policy],
        ['Up', `${exact(sum?.up ?? 0)} of ${exact(pool.backends.length)}`],
        ['Open', <Count n={sum?.open ?? 0} what="sessions and flows" />],
        ['New', <Rate n={sum?.new_per_second} />],
        ['To backends', <SizeRate n={sum?.c2b} />],
        ['To clients', <SizeRate n={sum?.b2c} />],
        ['Retries', <Count n={pool.retries} what="since the start" />],
        ['No backend', <Count n={pool.no_backend} what="clients turned away since the start, as no backend was usable" />],
        ['Full', <Count n={pool.pool_limit + pool.backend_limit} what="clients turned away since the start, as the pool or all its backends had their max_connections" />],
      ]} />
      {all.length === 0
        ? <Empty title="This pool has no backends."><p>Add one, or give the pool a source with <code>[pools.{name}.discovery]</code>.</p></Empty>
        : rows.length === 0
          ? <Empty title={`No backend has “${q}” in its address, state or zone.`}><p><a href={href(['pools', name])}>Show all {all.length}</a></p></Empty>
          : <div class={stale.value ? 'stale' : undefined}>
            <Table label={`Backends of ${name}`} rows={rows} columns={shown} rowKey={(r) => r.address} />
          </div>}
      <DiscoveryOf pool={name} known={pool.discovery} />
      {pool.persistence && <PersistenceOf pool={name} of={pool.persistence} />}
      {chosen && asked.order === 'look' && <BackendDialog of={chosen} onOrder={(order) => ask({ order, address: chosen.address })} onRemove={() => ask({ order: 'remove', address: chosen.address })} onClose={leave} />}
      {chosen && asked.order === 'remove' && <RemoveBackend pool={name} address={chosen.address} open={chosen.open} onClose={leave} />}
      {changing === 'add' && <AddBackend pool={name} onClose={() => change(null)} />}
      {changing === 'remove' && <RemoveTable kind="pool" name={name} onClose={() => change(null)} />}
      {chosen && asked.order !== 'look' && asked.order !== 'remove' && <OrderDialog of={chosen} order={asked.order} onClose={leave} />}
    </>
  )
}

// Who may give no orders finds all about a backend behind its address.
const columns = (ask: (a: Asked) => void, operate: boolean, wide: boolean): Column<Row>[] => [
  {
    key: 'address', title: 'Backend', sort: (r) => r.address,
    cell: (r) => (
      <>
        <button type="button" class="link address" title={r.address} onClick={() => ask({ order: 'look', address: r.address })}>{r.address}</button>
        {room.value === 'narrow' && <span class="narrow"><State state={r.state} /> <InState of={r} /></span>}
      </>
    ),
  },
  { key: 'state', title: 'State', width: '152px', from: 'middle', sort: (r) => r.state, cell: (r) => <><State state={r.state} /> <InState of={r} /></> },
  { key: 'weight', title: 'Weight', width: '76px', number: true, from: 'middle', sort: (r) => r.weight, cell: (r) => <Weight of={r} /> },
  { key: 'open', title: 'Open', hint: 'sessions and flows now', width: '68px', number: true, sort: (r) => r.open, cell: (r) => <Count n={r.open} what="sessions and flows" /> },
  { key: 'new', title: 'New', width: '76px', number: true, sort: (r) => r.live?.new_per_second ?? 0, cell: (r) => <Rate n={r.live?.new_per_second} /> },
  { key: 'c2b', title: 'To backend', width: '112px', number: true, from: 'roomy', sort: (r) => r.live?.c2b ?? 0, cell: (r) => <SizeRate n={r.live?.c2b} /> },
  { key: 'b2c', title: 'To clients', width: '100px', number: true, from: 'middle', sort: (r) => r.live?.b2c ?? 0, cell: (r) => <SizeRate n={r.live?.b2c} /> },
  { key: 'errors', title: 'Errors', hint: 'attempts to connect that failed', width: '84px', number: true, from: 'roomy', sort: (r) => r.live?.errors_per_second ?? 0, cell: (r) => <Rate n={r.live?.errors_per_second} what="failed attempts to connect" /> },
  { key: 'p99', title: 'Connect p99', hint: '99 of 100 connections took no longer', width: '112px', number: true, from: 'wide', sort: (r) => r.live?.connect_p99 ?? -1, cell: (r) => <Latency s={r.live?.connect_p99} /> },
  { key: 'checks', title: 'Last 60 checks', width: '136px', from: 'wide', cell: (r) => <Spark of={r.check} /> },
  ...(operate || !wide ? [{ key: 'act', title: '', width: 'var(--actions)', cell: (r: Row) => <Actions of={r} ask={ask} /> }] : []),
]

function InState({ of: r }: { of: Row }) {
  const at = sinceWhen(r)
  return at ? <span class="muted"><Lasting at={at} /></span> : null
}

// sinceWhen returns since when a backend is in its state, as far as anybody has noted it.
export function sinceWhen(r: Row): string | undefined {
  const noted = stateSince.value.get(checkKey(r.pool, r.address))
  if (noted?.state === r.state) return noted.time
  return r.health?.state === r.state ? r.health.since : undefined
}

function Actions({ of: r, ask }: { of: Row; ask: (a: Asked) => void }) {
  return (
    <span class="actions">
      {room.value === 'wide' && <span class="from-wide">
        {possible(r).map((order) => (
          <Button key={order} small label={`${orders[order].short} ${r.address}`} onClick={() => ask({ order, address: r.address })}>{orders[order].short}</Button>
        ))}
      </span>}
      {room.value !== 'wide' && <span class="below-wide"><Button small label={`More: details and actions of ${r.address}, ${plural(r.open, 'session')}`} onClick={() => ask({ order: 'look', address: r.address })}>More</Button></span>}
    </span>
  )
}
