// The last 60 checks of a backend: one bar each, as high as it took long, failures full height and in their colour.

import { latency } from '../format'
import type { Check } from '../types'

const bars = 60, step = 2, h = 20

export function Spark({ of: check }: { of: Check | undefined }) {
  if (!check) return <span class="muted">no check</span>
  const last = check.last.slice(-bars)
  const bad = last.filter((r) => r.result === 'bad').length, unknown = last.filter((r) => r.result === 'unknown').length
  const slowest = Math.max(1e-6, ...last.filter((r) => r.result === 'good').map((r) => r.seconds))
  const words = last.length === 0 ? 'not checked yet'
    : `last ${last.length} ${check.kind} checks: ${bad} failed${unknown ? `, ${unknown} not done` : ''}; the slowest good one took ${latency(slowest)}`
  return (
    <svg class="spark" width={bars * step} height={h} viewBox={`0 0 ${bars * step} ${h}`} role="img" aria-label={words}>
      <title>{words}</title>
      <path d={`M0 ${h - 0.5}H${bars * step}`} class="base" />
      {last.map((r, i) => {
        const x = (bars - last.length + i) * step
        const y = r.result === 'bad' ? h : r.result === 'unknown' ? h / 2 : 3 + (r.seconds / slowest) * (h - 10)
        return <rect key={r.time} class={r.result} x={x} y={h - y} width={step - 0.5} height={y} />
      })}
    </svg>
  )
}
