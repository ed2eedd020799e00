// The health of everything in one sentence.

import { exact, plural, since } from './format'
import { events } from './live'
import type { Sample, Status } from './types'
import type { Tone } from './ui/state'

// summary says what is wrong first, then since when, then whether clients feel it.
export function summary(s: Sample, st: Status, now: Date): { tone: Tone; text: string; more: string[] } {
  let up = 0, down = 0, other = 0
  const dead: string[] = []
  for (const p of s.pools) {
    up += p.up
    down += p.down
    other += p.other
    if (p.up === 0 && p.up + p.down + p.other > 0) dead.push(p.name)
  }
  const total = up + down + other, turned = s.totals.errors_per_second, more: string[] = []
  if (st.state === 'draining') more.push('The process drains: it takes no new sessions and ends when the last one has.')
  if (!st.config.last_ok && st.config.error) more.push(`The last reload was refused, and the configuration before it runs: ${st.config.error}`)
  const felt = turned > 0 ? `${turned < 1 ? 'some clients' : plural(Math.round(turned), 'client') + ' a second'} turned away` : 'traffic unaffected'
  if (st.config.stopped) return { tone: 'bad', text: 'Stopped: no frontend runs until a configuration is run', more }
  if (total === 0) return { tone: 'off', text: 'No backends are configured', more }
  if (dead.length) {
    const which = dead.length === 1 ? `Pool ${dead[0]} has` : `Pools ${dead.join(', ')} have`
    return { tone: 'bad', text: `${which} no backend up${began(st, now)}; ${turned > 0 ? felt : 'whoever comes there is turned away'}`, more }
  }
  if (down > 0) return { tone: turned > 0 ? 'bad' : 'warn', text: `${exact(down)} of ${plural(total, 'backend')} down${began(st, now)}; ${felt}`, more }
  if (turned > 0) return { tone: 'warn', text: `All backends are up, but ${felt}`, more }
  if (other > 0) return { tone: 'ok', text: `${exact(up)} of ${plural(total, 'backend')} up, ${exact(other)} taken out by order`, more }
  return { tone: 'ok', text: total === 1 ? 'The one backend is up' : `All ${exact(total)} backends are up`, more }
}

// began says since when something is down: the first of those that still are.
function began(st: Status, now: Date): string {
  const times = st.pools.flatMap((p) => p.backends).filter((b) => b.health?.state === 'down').map((b) => Date.parse(b.health!.since))
  if (times.length) return ' since ' + since(new Date(Math.min(...times)), now)
  const last = events.value.find((e) => e.to === 'down' || e.to === 'ejected')
  return last ? ' since ' + since(new Date(last.time), now) : ''
}
