// A table of which only the rows on the screen exist, so that ten thousand scroll like ten; and of which some rows are drawn anew in
// one frame and the others in the next, so that a second's news of all of them holds up nobody who scrolls.

import { Component, type ComponentChildren } from 'preact'
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks'
import { place, setQuery } from '../router'
import { fits, room, roomy } from '../screen'
import { saidBy } from './num'

export interface Column<R> {
  key: string
  title: string
  hint?: string // what the title means
  width?: string // absent: what is left over
  number?: boolean
  from?: 'roomy' | 'wide' | 'middle' // shown from that width of the screen on; absent: always
  sort?: (r: R) => number | string
  cell: (r: R) => ComponentChildren
}

const spare = 8 // rows beyond the screen, above and below, at least
const step = 2 // rows come and go so many at a time
const eachFrame = 8, whileScrolling = 2 // rows that get new values in one frame

let scrolled = -1000 // when somebody last did
addEventListener('scroll', () => { scrolled = performance.now() }, { passive: true, capture: true })

// rowHeight is what tokens and the style sheet say; measured, since phones have taller rows.
function useWindow(total: number) {
  const body = useRef<HTMLTableSectionElement>(null)
  const [range, setRange] = useState({ from: 0, to: Math.min(total, 60), height: 40 })
  const look = (): void => {
    const at = body.current
    if (!at) return
    const row = at.querySelector<HTMLElement>('tr[data-row]')
    const height = row?.offsetHeight || 40
    const top = at.getBoundingClientRect().top
    const from = Math.max(0, Math.floor((Math.min(total, Math.floor(-top / height)) - spare) / step) * step)
    const to = Math.max(from, Math.min(total, Math.ceil((Math.ceil((innerHeight - top) / height) + spare) / step) * step))
    setRange((was) => (was.from === from && was.to === to && was.height === height ? was : { from, to, height }))
  }
  const latest = useRef(look)
  latest.current = look
  useLayoutEffect(look, [total])
  useEffect(() => { // once: who scrolls while news come must not be forgotten
    // Scroll events come once a frame, before anything in it has changed the document: to measure then costs no layout.
    const ask = (): void => latest.current()
    addEventListener('scroll', ask, { passive: true })
    addEventListener('resize', ask)
    return () => {
      removeEventListener('scroll', ask)
      removeEventListener('resize', ask)
    }
  }, [])
  return { body, ...range }
}

// useTurns returns the rows as they are to be drawn now: those that have not been there before, as many others as a frame may draw
// anew, and the rest as they were. They have their turn in the next frames.
function useTurns<R>(rows: R[], keyOf: (r: R) => string): R[] {
  const drawn = useRef(new Map<string, R>()), asked = useRef(0), [, next] = useState(0)
  // To make a row is more work than to give it new values: where many come, the others wait.
  let left = (performance.now() - scrolled < 200 ? whileScrolling : eachFrame) - 3 * rows.filter((r) => !drawn.current.has(keyOf(r))).length, waiting = false
  const now = new Map<string, R>()
  const out = rows.map((r) => {
    const key = keyOf(r), was = drawn.current.get(key)
    const shown = was === undefined || was === r || left-- > 0 ? r : was
    if (shown !== r) waiting = true
    now.set(key, shown)
    return shown
  })
  drawn.current = now
  useLayoutEffect(() => {
    if (waiting && !asked.current) asked.current = requestAnimationFrame(() => { asked.current = 0; next((n) => n + 1) })
  })
  useEffect(() => () => cancelAnimationFrame(asked.current), [])
  return out
}

const collator = new Intl.Collator('en', { numeric: true })

export function sorted<R>(rows: R[], columns: Column<R>[], by: string): R[] {
  const down = by.startsWith('-'), key = down ? by.slice(1) : by
  const of = columns.find((c) => c.key === key)?.sort
  if (!of) return rows
  const sign = down ? -1 : 1
  return rows
    .map((row, i) => ({ row, i, value: of(row) }))
    .sort((a, b) => sign * (typeof a.value === 'number' && typeof b.value === 'number'
      ? a.value - b.value
      : collator.compare(String(a.value), String(b.value))) || a.i - b.i)
    .map((x) => x.row)
}

export function Table<R>(p: {
  label: string
  rows: R[]
  columns: Column<R>[]
  rowKey: (r: R) => string
  sort?: string // when the address says none
  remote?: boolean // the rows come sorted
}) {
  const by = place.value.query.get('sort') ?? p.sort ?? ''
  const rows = useMemo(() => (p.remote ? p.rows : sorted(p.rows, p.columns, by)), [p.rows, p.columns, by])
  const columns = useMemo(() => p.columns.filter((c) => fits(c.from)), [p.columns, room.value, roomy.value])
  const w = useWindow(rows.length)
  const to = Math.min(rows.length, w.to), from = Math.min(w.from, to)
  const shown = useTurns(rows.slice(from, to), p.rowKey)
  return (
    <table class="table" aria-label={p.label} aria-rowcount={rows.length + 1}>
      <thead>
        <tr aria-rowindex={1}>
          {columns.map((c) => <Head key={c.key} column={c} by={by} first={p.sort ?? ''} />)}
        </tr>
      </thead>
      <tbody ref={w.body}>
        {/* Gaps have one cell: more would be columns, also where columns are hidden. */}
        {from > 0 && <tr class="gap" aria-hidden="true"><td style={{ height: `${from * w.height}px` }} /></tr>}
        {shown.map((r, i) => (
          <Row key={p.rowKey(r)} of={r} columns={columns} index={from + i + 2} />
        ))}
        {to < rows.length && <tr class="gap" aria-hidden="true"><td style={{ height: `${(rows.length - to) * w.height}px` }} /></tr>}
      </tbody>
    </table>
  )
}

interface RowProps<R> { of: R; columns: Column<R>[]; index: number }

// Row is drawn anew when its values are, not when others come into sight.
class Row<R> extends Component<RowProps<R>> {
  override shouldComponentUpdate(next: RowProps<R>): boolean {
    return next.of !== this.props.of || next.columns !== this.props.columns || next.index !== this.props.index
  }

  override render({ of: r, columns, index }: RowProps<R>) {
    return <tr data-row aria-rowindex={index}>{columns.map((c) => cellOf(c, r))}</tr>
  }
}

function cellOf<R>(c: Column<R>, r: R) {
  const content = c.cell(r), said = saidBy(content)
  if (!said) return <td key={c.key} class={classes(c)}>{content}</td>
  return <td key={c.key} class={classes(c)} aria-label={said.exact}><span class="num" title={said.long}>{said.short}</span></td>
}

function Head<R>({ column: c, by, first }: { column: Column<R>; by: string; first: string }) {
  const style = c.width ? { width: c.width } : undefined
  if (!c.sort) return <th scope="col" class={classes(c)} style={style} title={c.hint}>{c.title || <span class="sr">Actions</span>}</th>
  const up = by === c.key, down = by === '-' + c.key
  // Numbers begin with the largest, words with A.
  const next = up ? '-' + c.key : down ? c.key : c.number ? '-' + c.key : c.key
  return (
    <th scope="col" class={classes(c)} style={style} aria-sort={up ? 'ascending' : down ? 'descending' : undefined}>
      <button type="button" title={c.hint} onClick={() => setQuery({ sort: next === first ? '' : next })}>
        {c.title}<span class="arrow" aria-hidden="true">{up ? '▲' : down ? '▼' : ''}</span>
      </button>
    </th>
  )
}

const classes = <R,>(c: Column<R>): string => [c.number ? 'number' : '', c.from ? 'from-' + c.from : ''].join(' ').trim()
