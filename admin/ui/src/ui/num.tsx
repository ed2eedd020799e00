// Numbers and times: short to see, exact to hover and to hear.

import type { ComponentChildren, JSX } from 'preact'
import { bytes, count, exact, latency, moment, since, span } from '../format'
import { now } from '../live'

// Said is a number as it is seen, and as it is heard and hovered.
export interface Said { short: string; long: string }

// A number that is exact when it is short needs no second text.
const isExact = ({ short, long }: Said): boolean => Number.parseFloat(short) === Number.parseFloat(long) && !/[kMGT,]/.test(short + long.split(' ')[0])

function Shown(said: Said) {
  if (isExact(said)) return <span class="num" title={said.long}>{said.short}</span>
  return (
    <span class="num" title={said.long}>
      <span aria-hidden="true">{said.short}</span>
      <span class="sr">{said.long}</span>
    </span>
  )
}

const none = <span class="num none" title="no value now"><span aria-hidden="true">–</span><span class="sr">none</span></span>

// numeric makes a component of what is said of its properties; null: there is no value now.
function numeric<P>(say: (p: P) => Said | null) {
  const component = (p: P): JSX.Element => {
    const said = say(p)
    return said ? <Shown {...said} /> : none
  }
  return Object.assign(component, { say })
}

// saidBy returns what cell says if it is one number and nothing else. A table shows it as the plain text of its cell, and gives the
// cell the exact value as its name: a second text in each of 300 cells that change each second costs more to lay out than all else.
export function saidBy(cell: ComponentChildren): (Said & { exact: string | undefined }) | null {
  if (typeof cell !== 'object' || cell === null || !('type' in cell) || typeof cell.type !== 'function' || !('say' in cell.type)) return null
  const said = (cell.type.say as (p: unknown) => Said | null)(cell.props)
  return said && { ...said, exact: isExact(said) ? undefined : said.long }
}

export const Count = numeric(({ n, what }: { n: number; what?: string }) => ({ short: count(n), long: exact(n) + (what ? ' ' + what : '') }))

export const Rate = numeric(({ n, what = '' }: { n: number | undefined; what?: string }) =>
  n === undefined ? null : { short: count(n) + '/s', long: `${exact(n)} ${what ? what + ' ' : ''}per second` })

export const Size = numeric(({ n }: { n: number }) => ({ short: bytes(n), long: `${exact(n)} bytes` }))

export const SizeRate = numeric(({ n }: { n: number | undefined }) =>
  n === undefined ? null : { short: bytes(n) + '/s', long: `${exact(Math.round(n))} bytes per second` })

export const Latency = numeric(({ s }: { s: number | null | undefined }) =>
  s === null || s === undefined ? null : { short: latency(s), long: `${exact(s * 1000)} milliseconds` })

// Ago says how long ago something was, or how long from now.
export function Ago({ at }: { at: string }) {
  const t = new Date(at), s = (now.value.getTime() - t.getTime()) / 1000
  return <time dateTime={at} title={moment(t)}>{s < -1 ? `in ${span(-s)}` : s < 1 ? 'now' : `${span(s)} ago`}</time>
}

// Lasting says for how long something has been so.
export function Lasting({ at }: { at: string }) {
  const t = new Date(at)
  return <time dateTime={at} title={`since ${moment(t)}`}>{span((now.value.getTime() - t.getTime()) / 1000)}</time>
}

export function Since({ at }: { at: string }) {
  const t = new Date(at)
  return <time dateTime={at} title={moment(t)}>{since(t, now.value)}</time>
}
