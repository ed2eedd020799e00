// What is wrong, what is going on, and what has just happened.

import { useEffect } from 'preact/hooks'
import { bytes, count, latency } from '../format'
import { events, now, sample, stale, status, wantBackends } from '../live'
import { href } from '../router'
import { summary } from '../summary'
import { Empty, Heading } from '../ui/basics'
import { Chart } from '../ui/chart'
import { EventRow } from './events'
import { drawnApart, Paths } from '../ui/paths'
import { Mark } from '../ui/state'

export function Overview() {
  const s = sample.value, st = status.value
  const drawnPools = st ? drawnApart(st.pools).join(',') : ''
  useEffect(() => wantBackends(drawnPools.split(',')), [drawnPools])
  return (
    <>
      <Heading title="Overview" />
      <Sentence />
      <section aria-label="Charts" class="charts">
        <Chart title="Open" unit="sessions and UDP flows" lines={[{ of: 'sessions', name: 'sessions' }, { of: 'flows', name: 'flows' }]} show={count} />
        <Chart title="New and refused" unit="per second" lines={[{ of: 'new_per_second', name: 'new' }, { of: 'errors_per_second', name: 'refused' }]} show={(n) => count(n) + '/s'} />
        <Chart title="Bytes" unit="per second" lines={[{ of: 'b2c', name: 'to clients' }, { of: 'c2b', name: 'to backends' }]} show={(n) => bytes(n) + '/s'} binary />
        <Chart title="Time to connect" unit="to backends" lines={[{ of: 'connect_p50', name: 'p50' }, { of: 'connect_p99', name: 'p99' }]} show={latency} />
      </section>
      <section aria-labelledby="paths">
        <h2 id="paths">Where traffic goes</h2>
        {st && st.frontends.length === 0
          ? <Empty title="No frontends are configured."><p>Add one in <a href="#/configuration">Configuration</a>, or in {st.config.file} and reload.</p></Empty>
          : s && st ? <Paths /> : null}
      </section>
      <section aria-labelledby="recent">
        <h2 id="recent">Last events</h2>
        {events.value.length === 0
          ? <Empty title="Nothing has happened."><p>When a backend goes down or comes up, it is said here.</p></Empty>
          : <><ol class="events">{events.value.slice(0, 10).map((e, i) => <EventRow key={e.time + i} of={e} />)}</ol>
            {events.value.length > 10 && <p><a href="#/events">All events</a></p>}</>}
      </section>
    </>
  )
}

function Sentence() {
  const s = sample.value, st = status.value
  if (!s || !st) return <p class="sentence off"><span>Waiting for the first second of data.</span></p>
  const { tone, text, more } = summary(s, st, now.value)
  const broken = st.pools.flatMap((p) => p.backends).filter((b) => b.state === 'down' || b.state === 'ejected')
  return (
    <div class={stale.value ? `sentence ${tone} stale` : `sentence ${tone}`} role="status">
      <p><Mark tone={tone} /> <span>{text}.</span></p>
      {more.map((m) => <p key={m} class="more">{m}</p>)}
      {broken.length > 0 && (
        <ul>
          {broken.slice(0, 3).map((b) => (
            <li key={b.pool + b.address}><a href={href(['pools', b.pool], { backend: b.address })}>{b.pool} / {b.address}</a>{b.health?.why ? `: ${b.health.why}` : ''}</li>
          ))}
          {broken.length > 3 && <li>and {broken.length - 3} more: see <a href="#/pools">Pools</a></li>}
        </ul>
      )}
    </div>
  )
}
