// What is happening now: one stream of samples a second, the status behind it, and how fresh both are.
//
//	connecting ──sample──▶ live ──error, or silence──▶ cut ──after a pause──▶ connecting
//
// Numbers are never shown as alive that are not: whoever shows some looks at stale.

import { computed, effect, signal } from '@preact/signals'
import { get, me, whoAmI, whyNot } from './api'
import type { BackendSample, Check, Event, History, PoolSample, Sample, Status, Totals } from './types'

const silence = 4000 // milliseconds without a sample after which the stream is taken to be cut
const longestPause = 10_000
const statusEvery = 10_000

export const sample = signal<Sample | null>(null)
export const status = signal<Status | null>(null)
export const events = signal<Event[]>([])
export const checks = signal<Map<string, Check>>(new Map())

// now moves once a second, for whatever says how long ago something was.
export const now = signal(new Date())

// link is the state of the stream; since is the time of the last sample before it was cut.
export const link = signal<{ state: 'connecting' | 'live' | 'cut'; since: Date; retry: Date }>({ state: 'connecting', since: new Date(), retry: new Date() })
export const stale = computed(() => link.value.state === 'cut')

// The charts: columns of the last quarter of an hour, all of one length. They are changed in place; drawn counts the changes.
export const chartSeconds = 900
export const chart: { time: number[] } & { [K in keyof Totals]: (number | null)[] } = {
  time: [], sessions: [], flows: [], new_per_second: [], c2b: [], b2c: [], errors_per_second: [], connect_p50: [], connect_p99: [],
}
const columns = ['sessions', 'flows', 'new_per_second', 'c2b', 'b2c', 'errors_per_second', 'connect_p50', 'connect_p99'] as const
export const drawn = signal(0)

// wanted are the pools of which the stream has each backend.
const wanted = signal('')

export function wantBackends(pools: string[]): void {
  wanted.value = pools.join(',')
}

export function poolSample(name: string): PoolSample | undefined {
  return sample.value?.pools.find((p) => p.name === name)
}

// backendSamples are those of a pool by their address.
export function backendSamples(pool: string): Map<string, BackendSample> {
  return new Map((poolSample(pool)?.backends ?? []).map((b) => [b.address, b]))
}

export const checkKey = (pool: string, address: string): string => pool + ' ' + address

// stateSince has when backends came to the state they last changed to.
export const stateSince = computed(() => {
  const found = new Map<string, { state: string; time: string }>()
  for (const e of events.value) { // the newest first
    const key = e.backend && e.to && e.what !== 'weight' ? checkKey(e.pool, e.backend) : ''
    if (key && !found.has(key)) found.set(key, { state: e.to!, time: e.time })
  }
  return found
})

export async function refreshStatus(): Promise<void> {
  status.value = await get<Status>('/status')
}

export async function refreshChecks(): Promise<void> {
  const { checks: all } = await get<{ checks: Check[] }>('/health')
  checks.value = new Map(all.map((c) => [checkKey(c.pool, c.backend), c]))
}

async function refreshEvents(): Promise<void> {
  events.value = (await get<{ events: Event[] }>('/events')).events
}

async function seedCharts(): Promise<void> {
  const h = await get<History>('/history')
  const end = Date.parse(h.end) / 1000
  const n = h.series.sessions.length
  const older = (list: unknown[]): number => list.length - n // the columns have one length; this is only for whoever cuts them
  chart.time = h.series.sessions.map((_, i) => end - (n - 1 - i) * h.step_seconds)
  for (const c of columns) chart[c] = h.series[c].slice(older(h.series[c]))
  drawn.value++
}

function addToCharts(s: Sample): void {
  const t = Date.parse(s.time) / 1000
  if (t <= (chart.time.at(-1) ?? 0)) return
  chart.time.push(t)
  for (const c of columns) chart[c].push(s.totals[c])
  const first = chart.time.findIndex((x) => x >= t - chartSeconds)
  if (first > 0) {
    chart.time.splice(0, first)
    for (const c of columns) chart[c].splice(0, first)
  }
  drawn.value++
}

let source: EventSource | null = null
let last = 0 // when the last sample came, by performance.now, which no clock change moves
let pause = 1000
let retrying = 0

function open(): void {
  source?.close()
  clearTimeout(retrying)
  const pools = wanted.peek()
  const mine = new EventSource('/api/v1/stream' + (pools ? '?pools=' + encodeURIComponent(pools) : ''))
  source = mine
  last = performance.now()
  mine.addEventListener('sample', (e) => {
    if (source !== mine) return
    const was = sample.peek(), s = JSON.parse((e as MessageEvent<string>).data) as Sample
    last = performance.now()
    pause = 1000
    if (link.peek().state !== 'live') {
      link.value = { state: 'live', since: new Date(), retry: new Date() }
      quietly(seedCharts(), refreshStatus(), refreshEvents(), refreshChecks())
    } else {
      addToCharts(s)
    }
    sample.value = s
    if (was && was.version !== s.version) quietly(refreshStatus())
  })
  mine.addEventListener('change', (e) => {
    if (source !== mine) return
    const { events: fresh } = JSON.parse((e as MessageEvent<string>).data) as { events: Event[] }
    events.value = [...fresh, ...events.peek()].slice(0, 1000)
    quietly(refreshStatus(), refreshChecks())
  })
  mine.onerror = () => { if (source === mine) cut() }
}

// cut notes that nothing comes any more, and tries again: soon at first, then every ten seconds.
function cut(): void {
  source?.close()
  source = null
  const was = link.peek()
  const since = was.state === 'cut' ? was.since : new Date(Date.now() - (performance.now() - last))
  link.value = { state: 'cut', since, retry: new Date(Date.now() + pause) }
  retrying = window.setTimeout(async () => {
    try {
      await whoAmI()
    } catch {
      cut()
      return
    }
    if (!whyNot('read')) open() // else the page asks for a login, and that opens it
  }, pause)
  pause = Math.min(pause * 2, longestPause)
}

// tryNow opens the stream without waiting.
export function tryNow(): void {
  pause = 1000
  open()
}

// quietly waits for nothing: what fails here fails because the link is cut, and that is shown.
function quietly(...all: Promise<unknown>[]): void {
  void Promise.allSettled(all)
}

// start keeps the page alive while we may read. Call it once.
export function start(): void {
  setInterval(() => {
    now.value = new Date()
    if (source && performance.now() - last > silence) cut()
  }, 1000)
  setInterval(() => {
    if (link.peek().state === 'live' && !document.hidden) quietly(refreshStatus(), refreshChecks())
  }, statusEvery)
  const mayRead = computed(() => me.value !== null && !whyNot('read'))
  effect(() => {
    void wanted.value
    if (mayRead.value) {
      open()
      return
    }
    source?.close()
    source = null
    clearTimeout(retrying)
    link.value = { state: 'connecting', since: new Date(), retry: new Date() } // what comes after a login begins anew
  })
}
