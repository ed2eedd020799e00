// The way of traffic: frontends, by their routes, to pools, to backends. A line is as wide as its traffic and has the colour
// of the state at its end.

import { useLayoutEffect, useRef, useState } from 'preact/hooks'
import { bytes, count, exact, plural } from '../format'
import { sample, stale, status } from '../live'
import { href } from '../router'
import type { Flowing, Pool } from '../types'
import { Mark, tone, type Tone } from './state'

// Pools with more backends than this are drawn as one, and so are those that come when so many backends have been drawn.
const mostDrawn = 12, mostInAll = 120

// drawnApart returns the names of the pools of which each backend is drawn.
export function drawnApart(pools: Pool[]): string[] {
  let room = mostInAll
  return pools.filter((p) => p.backends.length <= Math.min(mostDrawn, room) && (room -= p.backends.length) >= 0).map((p) => p.name)
}

interface Node { id: string; column: number; y: number; h: number; title: string; note: string; href: string; tone: Tone; label: string }
interface Link { from: Node; to: Node; flow: number; tone: Tone; label: string; port: number } // port: how far down from's side it begins

const gap = 10, nodeHeight = 44, backendHeight = 28

// flowOf weighs bytes and new sessions alike: a link is thick for bulk as for many small ones.
const flowOf = (f: Flowing | undefined): number => (f ? f.c2b + f.b2c + 500 * f.new_per_second : 0)

const flowWords = (f: Flowing | undefined): string => (f ? `${count(f.open)} open · ${count(f.new_per_second)}/s` : '')

const widthOf = (flow: number): number => (flow <= 0 ? 1.25 : Math.min(14, 1.5 + 1.25 * Math.log10(1 + flow / 100)))

function layout(): { nodes: Node[]; links: Link[]; height: number } {
  const st = status.value, s = sample.value
  const nodes: Node[] = [], links: Link[] = [], pools = new Map<string, Node>()
  if (!st) return { nodes, links, height: 0 }
  const frontends = st.frontends.filter((f) => !f.retired)
  // Pools in the order in which frontends name them, so that few lines cross.
  const targets = new Map(frontends.map((f) => {
    const to = (f.rules ?? []).map((r) => ({ pool: r.pool, label: r.match }))
    if (f.pool) to.push({ pool: f.pool, label: '' })
    return [f.name, to]
  }))
  const order = [...new Set([...targets.values()].flat().map((t) => t.pool).concat(st.pools.map((p) => p.name)))]
  const apart = new Set(drawnApart(st.pools))
  let y = 0
  for (const name of order) {
    const pool = st.pools.find((p) => p.name === name)
    if (!pool) continue
    const live = s?.pools.find((p) => p.name === name)
    const many = !apart.has(name)
    const rows = many || pool.backends.length === 0 ? 1 : pool.backends.length
    const block = Math.max(nodeHeight, rows * (backendHeight + 6) - 6)
    const up = live?.up ?? 0, all = pool.backends.length
    const poolTone: Tone = all === 0 ? 'off' : !live ? 'off' : up === 0 ? 'bad' : live.down > 0 ? 'warn' : 'ok'
    const node: Node = {
      id: 'p' + name, column: 1, y: y + (block - nodeHeight) / 2, h: nodeHeight, title: name, tone: poolTone,
      note: live ? `${exact(up)} of ${exact(all)} up` : exact(all), href: href(['pools', name]),
      label: `Pool ${name}: ${up} of ${all} backends up, ${flowWords(live)}`,
    }
    pools.set(name, node)
    nodes.push(node)
    if (many || all === 0) {
      const b: Node = {
        id: 'b' + name, column: 2, y: y + (block - backendHeight) / 2, h: backendHeight, tone: poolTone, href: href(['pools', name]),
        title: all === 0 ? 'no backends' : plural(all, 'backend'), note: '', label: `All ${all} backends of ${name}`,
      }
      nodes.push(b)
      links.push({ from: node, to: b, flow: flowOf(live), tone: poolTone, label: '', port: nodeHeight / 2 })
    } else {
      const samples = new Map((live?.backends ?? []).map((b) => [b.address, b]))
      pool.backends.forEach((b, i) => {
        const f = samples.get(b.address), state = f?.state ?? b.state
        const n: Node = {
          id: `b${name} ${b.address}`, column: 2, y: y + (block - rows * (backendHeight + 6) + 6) / 2 + i * (backendHeight + 6), h: backendHeight,
          title: b.address, note: f ? `${count(f.open)} · ${bytes(f.c2b + f.b2c)}/s` : '', tone: tone(state),
          href: href(['pools', name], { backend: b.address }), label: `Backend ${b.address}: ${state}, ${flowWords(f)}`,
        }
        nodes.push(n)
        links.push({ from: node, to: n, flow: tone(state) === 'bad' ? 0 : flowOf(f), tone: tone(state), label: '', port: nodeHeight / 2 })
      })
    }
    y += block + 2 * gap
  }
  const height = Math.max(y - 2 * gap, frontends.length * (nodeHeight + gap))
  // Frontends beside the pools they lead to, top to bottom without overlap.
  const wish = frontends
    .map((f) => {
      const at = (targets.get(f.name) ?? []).map((t) => pools.get(t.pool)?.y ?? 0)
      return { f, y: at.length ? at.reduce((a, b) => a + b, 0) / at.length : height }
    })
    .sort((a, b) => a.y - b.y)
  let free = 0
  wish.forEach(({ f, y: wanted }, i) => {
    const most = height - (wish.length - i) * (nodeHeight + gap) + gap
    const live = s?.frontends.find((x) => x.name === f.name)
    const top = Math.max(free, Math.min(wanted, Math.max(free, most)))
    free = top + nodeHeight + gap
    const node: Node = {
      id: 'f' + f.name, column: 0, y: top, h: nodeHeight, title: f.name, note: f.listeners[0] ?? f.protocol, tone: 'ok',
      href: href(['frontends', f.name]), label: `Frontend ${f.name} on ${f.listeners.join(', ')}: ${flowWords(live)}`,
    }
    nodes.push(node)
    const to = (targets.get(f.name) ?? []).map((t) => ({ ...t, to: pools.get(t.pool) })).sort((a, b) => (a.to?.y ?? 0) - (b.to?.y ?? 0))
    to.forEach(({ to, ...t }, i, all) => {
      if (!to) return
      // Nobody counts by route: a link has no more than either of its ends.
      const flow = Math.min(flowOf(live), flowOf(s?.pools.find((x) => x.name === t.pool)))
      links.push({ from: node, to, flow, tone: to.tone === 'bad' ? 'bad' : 'ok', label: t.label, port: (nodeHeight * (i + 1)) / (all.length + 1) })
    })
  })
  return { nodes, links, height }
}

const cut = (s: string, n: number): string => (s.length > n ? s.slice(0, n - 1) + '…' : s)

export function Paths() {
  const box = useRef<HTMLDivElement>(null), [width, setWidth] = useState(0)
  useLayoutEffect(() => {
    const sizes = new ResizeObserver((all) => setWidth(all[0]?.contentRect.width ?? 0))
    sizes.observe(box.current!)
    return () => sizes.disconnect()
  }, [])
  const { nodes, links, height } = layout()
  const small = width < 560
  const w = small ? [0.24, 0.23, 0.42] : [0.22, 0.18, 0.28]
  const x = [0, small ? 0.29 : 0.38, 1 - w[2]!]
  const room = w[2]! * width
  const left = (n: Node): number => x[n.column]! * width, right = (n: Node): number => left(n) + w[n.column]! * width
  return (
    <div class={stale.value ? 'paths stale' : 'paths'} ref={box} style={{ height: `${height + 24}px` }}>
      <ol class="columns" aria-hidden="true">
        {['Frontends', 'Pools', 'Backends'].map((t, i) => <li key={t} style={{ left: `${x[i]! * width}px` }}>{t}</li>)}
      </ol>
      <svg width={width} height={height + 24} aria-hidden="true">
        {links.map((l) => {
          const x1 = right(l.from), x2 = left(l.to), y1 = l.from.y + l.port + 24, y2 = l.to.y + l.to.h / 2 + 24, m = (x1 + x2) / 2
          return (
            <g key={l.from.id + l.to.id + l.label} class={`link ${l.tone}${l.flow > 0 ? '' : ' idle'}`}>
              <path d={`M${x1} ${y1}C${m} ${y1} ${m} ${y2} ${x2} ${y2}`} style={{ strokeWidth: `${widthOf(l.flow)}px` }} />
              {/* Where the line is flat, on the side that it does not come from. */}
              {l.label && !small && <text x={x2 - 8} y={y2 <= y1 ? y2 - 5 - widthOf(l.flow) / 2 : y2 + 14 + widthOf(l.flow) / 2} text-anchor="end">{cut(l.label, Math.floor((x2 - x1 - 16) / 6))}</text>}
            </g>
          )
        })}
      </svg>
      <ul>
        {nodes.map((n) => (
          <li key={n.id} style={{ left: `${left(n)}px`, top: `${n.y + 24}px`, width: `${w[n.column]! * width}px`, height: `${n.h}px` }}>
            <a class={`node ${n.tone} column-${n.column}`} href={n.href} title={n.label}>
              {n.column > 0 && <Mark tone={n.tone} />}
              <span class="name">{n.title}</span>
              <span class="note">{n.column < 2 ? n.note : room > 280 ? n.note.replace(' ·', ' open ·') : room > 230 ? n.note : ''}</span>
              <span class="sr">{n.label}</span>
            </a>
          </li>
        ))}
      </ul>
    </div>
  )
}
