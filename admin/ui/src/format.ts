// Numbers and times for people: short to see, exact to hover and to hear.

const grouped = new Intl.NumberFormat('en-US', { maximumFractionDigits: 3 })

export const exact = (n: number): string => grouped.format(n)

// scaled cuts n to three digits and the unit of its size.
function scaled(n: number, step: number, units: string[]): string {
  let i = 0
  while (Math.abs(n) >= step * 0.9995 && i < units.length - 1) {
    n /= step
    i++
  }
  const digits = i === 0 ? (Number.isInteger(n) || n >= 10 ? 0 : 1) : n >= 99.95 ? 0 : 1
  const unit = units[i] ?? ''
  return n.toFixed(digits) + (unit && '\u202f' + unit)
}

export const count = (n: number): string => scaled(n, 1000, ['', 'k', 'M', 'G', 'T'])

export const bytes = (n: number): string => scaled(n, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'])

// latency is for what takes from microseconds to seconds.
export function latency(s: number): string {
  if (s < 0.001) return `${Math.round(s * 1e6)}\u202fµs`
  if (s < 1) return `${(s * 1e3).toPrecision(s < 0.01 ? 2 : 3).replace(/\.0+$/, '')}\u202fms`
  return `${s.toFixed(s < 10 ? 2 : 1)}\u202fs`
}

// span is a time in one unit, two where the first is small.
export function span(s: number): string {
  s = Math.max(0, Math.round(s))
  if (s < 60) return `${s}\u202fs`
  if (s < 3600) return `${Math.floor(s / 60)}\u202fmin`
  if (s < 86400) {
    const h = Math.floor(s / 3600), m = Math.floor((s % 3600) / 60)
    return m && h < 10 ? `${h}\u202fh ${m}\u202fmin` : `${h}\u202fh`
  }
  return `${Math.floor(s / 86400)}\u202fd`
}

const full = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'medium' })
const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' })
const minute = new Intl.DateTimeFormat('en-GB', { timeStyle: 'short' })
const day = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium' })

export const moment = (t: Date): string => full.format(t)
export const time = (t: Date): string => clock.format(t)
export const minutes = (t: Date): string => (t.getSeconds() ? clock : minute).format(t)
export const date = (t: Date): string => day.format(t)

// since says when something began: the minute today, the day before that.
export function since(t: Date, now: Date): string {
  return t.toDateString() === now.toDateString() ? minute.format(t) : `${day.format(t)}, ${minute.format(t)}`
}

export const plural = (n: number, one: string, many = one + 's'): string => `${exact(n)} ${n === 1 ? one : many}`

// unplaced is what is wrong without FILE:LINE:, for whoever shows it there.
const place = /^\S*:\d+: /

export const unplaced = (m: { line?: number; message: string }): string => (m.line ? m.message.replace(place, '') : m.message)

// ofTable has the warnings about one pool or frontend, without their place in a text that is not shown.
export const ofTable = (warnings: string[], section: string, name: string): string[] =>
  warnings.map((w) => w.replace(place, '')).filter((w) => [`${section}.${name}`, `${section}."${name}"`].some((key) => w.startsWith(key) && /^[.:[]/.test(w.slice(key.length))))
