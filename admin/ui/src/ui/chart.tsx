// One chart of the last quarter of an hour. All charts share a cursor: what is pointed at in one is read in all.

import { effect, signal } from '@preact/signals'
import { useEffect, useMemo, useRef } from 'preact/hooks'
import uPlot from 'uplot'
import 'uplot/dist/uPlot.min.css'
import { minutes, time } from '../format'
import { chart, chartSeconds, drawn, stale } from '../live'
import { dark } from '../theme'
import type { Totals } from '../types'

export interface Line { of: keyof Totals; name: string }

// pointed is the index of the moment under the cursor, null when there is none.
const pointed = signal<number | null>(null)

const token = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim()

// Phones have less room below the thumb.
const heightOf = (box: HTMLElement): number => box.clientHeight || 132

export function Chart(p: { title: string; unit: string; lines: [Line, Line?]; show: (n: number) => string; binary?: boolean }) {
  const box = useRef<HTMLDivElement>(null)
  const lines = useMemo(() => p.lines.filter((l): l is Line => l !== undefined), [])
  useEffect(() => {
    const at = box.current!
    let plot: uPlot | null = null
    const data = (): uPlot.AlignedData => [chart.time, ...lines.map((l) => chart[l.of])] as uPlot.AlignedData
    const stopColours = effect(() => {
      void dark.value
      plot?.destroy()
      plot = new uPlot(options(lines, at, p.show, Boolean(p.binary)), data(), at)
    })
    const stopData = effect(() => {
      void drawn.value
      if (!document.hidden) plot?.setData(data())
    })
    const sizes = new ResizeObserver(() => plot?.setSize({ width: at.clientWidth, height: heightOf(at) }))
    sizes.observe(at)
    return () => {
      stopColours()
      stopData()
      sizes.disconnect()
      plot?.destroy()
    }
  }, [])
  return (
    <figure class={stale.value ? 'chart stale' : 'chart'} aria-label={`${p.title}, ${p.unit}, up to the last 15 minutes`}>
      <figcaption>
        <span class="strong">{p.title}</span> <span class="muted">{p.unit}</span>
        <Legend lines={lines} show={p.show} />
      </figcaption>
      <div class="plot" ref={box} aria-hidden="true" />
    </figure>
  )
}

// Legend has the values at the cursor, or the last ones.
function Legend({ lines, show }: { lines: Line[]; show: (n: number) => string }) {
  void drawn.value
  const at = pointed.value ?? chart.time.length - 1
  const t = chart.time[at]
  return (
    <span class="legend">
      {lines.map((l, i) => {
        const v = chart[l.of][at]
        return (
          <span key={l.of} class={`key series-${i + 1}`}>
            <svg width="16" height="8" viewBox="0 0 16 8" aria-hidden="true"><path d="M0 4h16" stroke="currentColor" stroke-width="2" stroke-dasharray={i ? '4 2' : undefined} /></svg>
            {l.name} <span class="value">{v === null || v === undefined ? '–' : show(v)}</span>
          </span>
        )
      })}
      {pointed.value !== null && t !== undefined && <span class="muted at">{time(new Date(t * 1000))}</span>}
    </span>
  )
}

// A process that has just begun fills its charts all the same: they show one minute at least, a quarter of an hour at most.
function shownRange(): [number, number] {
  const end = chart.time.at(-1) ?? Date.now() / 1000
  return [Math.max(end - chartSeconds, Math.min(chart.time[0] ?? end, end - 60)), end]
}

// Steps of axes with bytes: 1, 2, 4 …, so that labels are round in KiB and MiB.
const powersOfTwo = Array.from({ length: 50 }, (_, i) => 2 ** i)

function options(lines: Line[], box: HTMLElement, show: (n: number) => string, binary: boolean): uPlot.Options {
  const text = token('--muted'), grid = { stroke: token('--line'), width: 1 }
  const font = `11px ${token('--font')}`
  return {
    width: box.clientWidth,
    height: heightOf(box),
    legend: { show: false },
    padding: [8, 4, 0, 0],
    cursor: {
      sync: { key: 'overview', setSeries: false },
      drag: { x: false, y: false, setScale: false },
      y: false,
      points: { size: 6 },
    },
    hooks: { setCursor: [(u) => { pointed.value = u.cursor.idx ?? null }] },
    scales: {
      x: { time: true, range: shownRange },
      y: { range: (_u, _min, max) => [0, max > 0 ? max * 1.1 : 1] },
    },
    axes: [
      { stroke: text, font, grid: { show: false }, ticks: { show: false }, size: 28, gap: 9, space: 76, values: (_u, all) => all.map((t) => minutes(new Date(t * 1000))) },
      { stroke: text, font, grid, ticks: { show: false }, size: 62, gap: 6, space: 32, values: (_u, all) => all.map((v) => show(v)), ...(binary ? { incrs: powersOfTwo } : {}) },
    ],
    series: [
      {},
      ...lines.map((_, i): uPlot.Series => ({
        stroke: token(`--series-${i + 1}`),
        width: 1.75,
        ...(i ? { dash: [5, 3] } : { fill: token('--series-1') + '1a' }),
        points: { show: false },
        spanGaps: false,
      })),
    ],
  }
}
