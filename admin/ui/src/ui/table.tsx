// A table of which only the rows on the screen exist, so that ten thousand scroll like ten.

import { Component, type ComponentChildren } from 'preact'
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks'
import { place, setQuery } from '../router'

export interface Column<R> {
  key: string
  title: string
  hint?: string // what the title means
  width?: string // absent: what is left over
  number?: boolean
  from?: 'wide' | 'middle' // shown from that width of the screen on; absent: always
  sort?: (r: R) => number | string
  cell: (r: R) => ComponentChildren
}

const spare = 8 // rows beyond the screen, above and below

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
    const from = Math.max(0, Math.min(total, Math.floor(-top / height)) - spare)
    const to = Math.max(from, Math.min(total, Math.ceil((innerHeight - top) / height) + spare))
    setRange((was) => (was.from === from && was.to === to && was.height === height ? was : { from, to, height }))
  }
  useLayoutEffect(look, [total])
  useEffect(() => {
    let asked = 0
    const ask = (): void => {
      if (!asked) asked = requestAnimationFrame(() => { asked = 0; look() })
    }
    addEventListener('scroll', ask, { passive: true })
    addEventListener('resize', ask)
    return () => {
      removeEventListener('scroll', ask)
      removeEventListener('resize', ask)
      cancelAnimationFrame(asked)
    }
  })
  return { body, ...range }
}

export function sorted<R>(rows: R[], columns: Column<R>[], by: string): R[] {
  const down = by.startsWith('-'), key = down ? by.slice(1) : by
  const of = columns.find((c) => c.key === key)?.sort
  if (!of) return rows
  const sign = down ? -1 : 1
  return rows
    .map((row, i) => ({ row, i, value: of(row) }))
    .sort((a, b) => sign * (typeof a.value === 'number' && typeof b.value === 'number'
      ? a.value - b.value
      : String(a.value).localeCompare(String(b.value), 'en', { numeric: true })) || a.i - b.i)
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
  const w = useWindow(rows.length)
  const to = Math.min(rows.length, w.to), from = Math.min(w.from, to)
  return (
    <table class="table" aria-label={p.label} aria-rowcount={rows.length + 1}>
      <thead>
        <tr aria-rowindex={1}>
          {p.columns.map((c) => <Head key={c.key} column={c} by={by} first={p.sort ?? ''} />)}
        </tr>
      </thead>
      <tbody ref={w.body}>
        {/* Gaps have one cell: more would be columns, also where columns are hidden. */}
        {from > 0 && <tr class="gap" aria-hidden="true"><td style={{ height: `${from * w.height}px` }} /></tr>}
        {rows.slice(from, to).map((r, i) => (
          <Row key={p.rowKey(r)} of={r} columns={p.columns} index={from + i + 2} />
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
    return <tr data-row aria-rowindex={index}>{columns.map((c) => <td key={c.key} class={classes(c)}>{c.cell(r)}</td>)}</tr>
  }
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
