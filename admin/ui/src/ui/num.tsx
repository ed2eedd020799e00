// Numbers and times: short to see, exact to hover and to hear.

import { bytes, count, exact, latency, moment, since, span } from '../format'
import { now } from '../live'

interface Shown { short: string; long: string }

// A number that is exact when it is short needs no second text; tables of a thousand zeros are the lighter for it.
function Shown({ short, long }: Shown) {
  if (Number.parseFloat(short) === Number.parseFloat(long) && !/[kMGT,]/.test(short + long.split(' ')[0])) return <span class="num" title={long}>{short}</span>
  return (
    <span class="num" title={long}>
      <span aria-hidden="true">{short}</span>
      <span class="sr">{long}</span>
    </span>
  )
}

const none = <span class="num none" title="no value now"><span aria-hidden="true">–</span><span class="sr">none</span></span>

export const Count = ({ n, what }: { n: number; what?: string }) => <Shown short={count(n)} long={exact(n) + (what ? ' ' + what : '')} />

export const Rate = ({ n, what = '' }: { n: number | undefined; what?: string }) =>
  n === undefined ? none : <Shown short={count(n) + '/s'} long={`${exact(n)} ${what ? what + ' ' : ''}per second`} />

export const Size = ({ n }: { n: number }) => <Shown short={bytes(n)} long={`${exact(n)} bytes`} />

export const SizeRate = ({ n }: { n: number | undefined }) =>
  n === undefined ? none : <Shown short={bytes(n) + '/s'} long={`${exact(Math.round(n))} bytes per second`} />

export const Latency = ({ s }: { s: number | null | undefined }) =>
  s === null || s === undefined ? none : <Shown short={latency(s)} long={`${exact(s * 1000)} milliseconds`} />

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
