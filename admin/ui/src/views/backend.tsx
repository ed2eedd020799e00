// One backend: everything known of it, and the orders it can be given.

import { useState } from 'preact/hooks'
import { call, encode, may, whyNot } from '../api'
import { latency, plural } from '../format'
import { refreshStatus } from '../live'
import { href } from '../router'
import { Button, Facts } from '../ui/basics'
import { Confirm, Dialog } from '../ui/dialog'
import { Ago, Count, Latency, Rate, Since, Size, SizeRate } from '../ui/num'
import { Beyond } from '../ui/role'
import { Spark } from '../ui/spark'
import { State } from '../ui/state'
import { sinceWhen, type Row } from './pool'
import { Weight } from './weight'

export type Order = 'ready' | 'drain' | 'maintenance'

export const orders: Record<Order, { act: string; short: string }> = {
  drain: { act: 'Drain', short: 'Drain' },
  maintenance: { act: 'Maintenance for', short: 'Maintenance' },
  ready: { act: 'Enable', short: 'Enable' },
}

// possible are the orders that would change something.
export const possible = (r: Row): Order[] => (r.order ? ['ready'] : ['drain', 'maintenance'])

export async function orderBackend(pool: string, address: string, change: { state?: Order; weight?: number | null }): Promise<void> {
  await call('PATCH', `/pools/${encode(pool)}/backends/${encode(address)}`, change)
  await refreshStatus()
}

// consequence says what an order does before it is given.
function consequence(r: Row, order: Order): string {
  const open = plural(r.open, 'session')
  switch (order) {
    case 'drain':
      return r.open === 0 ? 'It gets no new sessions. It has none now, so it is free at once.'
        : `It gets no new sessions. The ${open} it has ${r.open === 1 ? 'goes' : 'go'} on until ${r.open === 1 ? 'it ends' : 'they end'} by themselves; watch Open fall to 0.`
    case 'maintenance':
      return 'It is not used until you enable it, whatever its health check says' + (r.open === 0 ? '.' : `. It gets no new sessions; what becomes of the ${open} it has is for on_down of the pool to say.`)
    case 'ready':
      return r.health && r.health.state !== 'up' ? `The order is taken back. Its health check says ${r.health.state}, so it gets sessions when that changes.`
        : 'The order is taken back: it gets new sessions again at once, by its weight.'
  }
}

export function OrderDialog({ of: r, order, onClose }: { of: Row; order: Order; onClose: () => void }) {
  return (
    <Confirm
      title={`${orders[order].act} ${r.address}?`} act={orders[order].short} whyNot={whyNot('operate')} onClose={onClose}
      onAct={() => orderBackend(r.pool, r.address, { state: order })}
    >
      <p>{consequence(r, order)}</p>
      {order !== 'ready' && <p class="muted">The order holds until it is taken back or the process ends. The configuration is not changed.</p>}
    </Confirm>
  )
}

export function BackendDialog({ of: r, onOrder, onRemove, onClose }: { of: Row; onOrder: (o: Order) => void; onRemove: () => void; onClose: () => void }) {
  const h = r.health, at = sinceWhen(r)
  const [all, showAll] = useState(false)
  const errors = Object.entries(r.connect_errors)
  return (
    <Dialog title={r.address} onClose={onClose}>
      <p><State state={r.state} />{at && <span class="muted"> since <Since at={at} /></span>}{h?.why && h.state === r.state && <> <span class="why">{h.why}</span></>}{r.agent_order && <> by its agent</>}</p>
      <Facts of={[
        ['Weight', <><Weight of={r} />{r.ordered_weight !== undefined && <span class="muted"> configured {r.configured_weight}</span>}</>],
        ['Open', <Count n={r.open} what="sessions and flows" />],
        ['New', <Rate n={r.live?.new_per_second} />],
        ['To backend', <SizeRate n={r.live?.c2b} />],
        ['To clients', <SizeRate n={r.live?.b2c} />],
        ['Connect p99', <Latency s={r.live?.connect_p99} />],
        ['Errors', <Rate n={r.live?.errors_per_second} />],
        ...(r.zone ? [['Zone', r.zone] as [string, string]] : []),
        ...(r.priority ? [['Priority', String(r.priority)] as [string, string]] : []),
      ]} />
      <p><Spark of={r.check} /></p>
      {h?.last_check && (
        <p class="muted">Last {h.kind} check <Ago at={h.last_check} />: {h.last_result}, {latency(h.latency_seconds)}{h.last_error ? `: ${h.last_error}` : ''}{h.note ? ` (${h.note})` : ''}</p>
      )}
      <p><button type="button" class="link" aria-expanded={all} onClick={() => showAll(!all)}>{all ? 'Less' : 'Since the start'}</button></p>
      {all && <Facts of={[
        ['Connected', <Count n={r.connected} what="sessions" />], ['To backend', <Size n={r.bytes.c2b} />], ['To clients', <Size n={r.bytes.b2c} />],
        ...errors.map(([reason, n]) => [reason, <Count n={n} what="attempts" />] as [string, preact.ComponentChildren]),
      ]} />}
      <Beyond operate={['draining', 'maintenance', 'changing the weight']} configure={['removing it']} />
      <div class="buttons">
        <a class="button plain" href={href(['sessions'], { pool: r.pool, backend: r.address })}>Its sessions</a>
        {may('operate') && possible(r).map((o) => (
          <Button key={o} onClick={() => onOrder(o)}>{orders[o].short}</Button>
        ))}
        {may('configure') && <Button onClick={onRemove}>Remove</Button>}
        <Button kind="main" onClick={onClose}>Close</Button>
      </div>
    </Dialog>
  )
}
