// One frontend: where it listens, where its routes lead, and how its sessions ended.

import { useEffect, useState } from 'preact/hooks'
import { may } from '../api'
import { exact } from '../format'
import { sample, stale, status, wantBackends } from '../live'
import { go, href } from '../router'
import type { Frontend } from '../types'
import { Button, Empty, Facts, Heading } from '../ui/basics'
import { Count, Rate, Size, SizeRate } from '../ui/num'
import { Beyond } from '../ui/role'
import { Mark, type Tone } from '../ui/state'
import { RemoveTable } from './tables'

export function FrontendView({ name }: { name: string }) {
  useEffect(() => wantBackends([]), [])
  const [removing, remove] = useState(false)
  const st = status.value, f = st?.frontends.find((x) => x.name === name)
  const heading = <Heading title={name} above={<a href="#/frontends">Frontends</a>}>{f && <span class="row"><a href={href(['sessions'], { frontend: name })}>Its sessions</a>{!f.retired && may('configure') && <><Button onClick={() => go('frontends', name, 'edit')}>Edit</Button><Button onClick={() => remove(true)}>Remove</Button></>}</span>}</Heading>
  if (!st) return heading
  if (!f) return <>{heading}<Empty title={`There is no frontend “${name}”.`}><p>It may have been renamed or removed. <a href="#/frontends">All frontends</a></p></Empty></>
  const live = sample.value?.frontends.find((x) => x.name === name)
  return (
    <div class={stale.value ? 'stale' : undefined}>
      {heading}
      {!f.retired && <Beyond configure={['editing and removing the frontend']} />}
      {removing && <RemoveTable kind="frontend" name={name} onClose={() => remove(false)} />}
      <Facts of={[
        ['Protocol', f.tls ? `${f.protocol}, TLS ends here` : f.protocol],
        ['Listens on', f.listeners.join(', ') || 'nothing', 'long'],
        ['Open', <><Count n={live?.open ?? f.open} what="sessions and flows" />{f.max_connections > 0 && <span class="muted"> of {exact(f.max_connections)}</span>}</>],
        ['New', <Rate n={live?.new_per_second} />],
        ['To backends', <SizeRate n={live?.c2b} />],
        ['To clients', <SizeRate n={live?.b2c} />],
      ]} />
      <section aria-labelledby="routes">
        <h2 id="routes">Routes</h2>
        <ol class="routes">
          {(f.rules ?? []).map((r, i) => <Step key={i} condition={r.match} pool={r.pool} note={r.passthrough ? 'TLS is left to the backend' : ''} />)}
          {f.pool ? <Step condition={f.rules?.length ? 'everything else' : 'everything'} pool={f.pool} note="" /> : <li><span>everything else</span><span class="muted">is refused</span></li>}
        </ol>
      </section>
      <section aria-labelledby="since">
        <h2 id="since">Since the start</h2>
        <Facts of={[
          ['Accepted', <Count n={f.accepted} />], ['To backends', <Size n={f.bytes.c2b} />], ['To clients', <Size n={f.bytes.b2c} />],
          ...(f.tls ? [['Handshakes', <Count n={sum(f.tls.handshakes)} />], ['Resumed', <Count n={f.tls.resumed} />], ['Handshakes failed', <Count n={f.tls.failed} />], ['Half open', <Count n={f.tls.half_open} />]] as [string, preact.ComponentChildren][] : []),
        ]} />
      </section>
      <Reasons title="How they ended" of={f.ended} empty="Nothing has ended yet." />
      {f.udp && <Reasons title="Datagrams dropped" of={both(f)} empty="No datagram has been dropped." />}
    </div>
  )
}

const sum = (of: Record<string, number>): number => Object.values(of).reduce((a, b) => a + b, 0)

function both(f: Frontend): Record<string, number> {
  const all: Record<string, number> = {}
  for (const [reason, n] of Object.entries(f.udp?.dropped_c2b ?? {})) all[`${reason}, to backends`] = n
  for (const [reason, n] of Object.entries(f.udp?.dropped_b2c ?? {})) all[`${reason}, to clients`] = n
  return all
}

function Step({ condition, pool, note }: { condition: string; pool: string; note: string }) {
  const live = sample.value?.pools.find((p) => p.name === pool)
  const tone: Tone = !live || live.up + live.down + live.other === 0 ? 'off' : live.up === 0 ? 'bad' : live.down > 0 ? 'warn' : 'ok'
  return (
    <li>
      <span>{condition}</span>
      <span><span class="muted" aria-hidden="true">→ </span><a href={href(['pools', pool])}>{pool}</a> {live && <span class={`state ${tone}`}><Mark tone={tone} />{live.up} of {live.up + live.down + live.other} up</span>}{note && <span class="muted"> {note}</span>}</span>
    </li>
  )
}

function Reasons({ title, of, empty }: { title: string; of: Record<string, number>; empty: string }) {
  const all = Object.entries(of).sort((a, b) => b[1] - a[1]), most = all[0]?.[1] ?? 1
  return (
    <section aria-label={title}>
      <h2>{title}</h2>
      {all.length === 0 ? <p class="muted">{empty}</p> : (
        <ul class="reasons">
          {all.map(([reason, n]) => (
            <li key={reason}>
              <span>{reason.replace(/_/g, ' ')}</span>
              <span class="number"><Count n={n} /></span>
              <svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect width={Math.max(0.5, (n / most) * 100)} height="8" /></svg>
            </li>
          ))}
        </ul>
      )}
    </section>
  )
}
