// Where a pool's backends come from, when it finds them by itself.

import { useEffect, useState } from 'preact/hooks'
import { call, encode, get, may } from '../api'
import { plural } from '../format'
import { sample } from '../live'
import type { Discovery, Source } from '../types'
import { Button, Failure } from '../ui/basics'
import { Confirm } from '../ui/dialog'
import { Ago, Lasting } from '../ui/num'
import { Mark, type Tone } from '../ui/state'

const tones: Record<string, Tone> = { fresh: 'ok', waiting: 'off', restored: 'warn', holding: 'warn', failing: 'bad', stale: 'bad' }

const meanings: Record<string, string> = {
  waiting: 'has not said anything yet', restored: 'the list of the last run is in use', fresh: 'its list is in use',
  holding: 'its list is held back: too much of it has changed at once', failing: 'it does not answer; its last good list is in use',
  stale: 'its last good list is too old and no longer in use',
}

export function DiscoveryOf({ pool, known }: { pool: string; known: Discovery | undefined }) {
  const [found, setFound] = useState<Discovery | undefined>(known), [failure, setFailure] = useState<unknown>(null), [accepting, accept] = useState(false)
  const look = async (): Promise<void> => {
    const { pools } = await get<{ pools: Discovery[] }>('/discovery')
    setFound(pools.find((d) => d.pool === pool))
  }
  const ten = Math.floor(Date.parse(sample.value?.time ?? '') / 10_000)
  useEffect(() => { setFound(known) }, [known])
  useEffect(() => { if (known) look().catch(() => { /* the next look is in ten seconds */ }) }, [pool, ten])
  if (!found) return null
  const held = found.sources.filter((s) => s.held !== undefined)
  const refresh = async (): Promise<void> => {
    setFailure(null)
    try {
      await call('POST', `/discovery/${encode(pool)}/refresh`)
      await look()
    } catch (e) {
      setFailure(e)
    }
  }
  return (
    <section aria-labelledby="discovery">
      <div class="row">
        <h2 id="discovery">Discovery</h2>
        {may('operate') && <Button small onClick={() => void refresh()}>Ask now</Button>}
        {held.length > 0 && may('operate') && <Button small kind="main" onClick={() => accept(true)}>Use what is held back</Button>}
      </div>
      <Failure of={failure || found.save_error} />
      <ul class="sources">{found.sources.map((s) => <SourceRow key={s.name} of={s} />)}</ul>
      {accepting && (
        <Confirm
          title="Use the lists that are held back?" act="Use them" onClose={() => accept(false)}
          onAct={() => call('POST', `/discovery/${encode(pool)}/accept`).then(look)}
        >
          <p>{held.map((s) => `${s.name} said ${plural(s.held ?? 0, 'backend')}; ${s.backends} are in use now.`).join(' ')} Backends that are not in it drain.</p>
        </Confirm>
      )}
    </section>
  )
}

function SourceRow({ of: s }: { of: Source }) {
  const t = tones[s.state] ?? 'off'
  return (
    <li>
      <span class={`state ${t}`} title={meanings[s.state]}><Mark tone={t} />{s.state}</span>
      <span class="strong">{s.name}</span>
      <span class="why">
        {plural(s.backends, 'backend')}; {meanings[s.state] ?? ''} <span class="muted">for <Lasting at={s.since} /></span>
        {s.last_success && <span class="muted">, last answer <Ago at={s.last_success} /></span>}
        {s.error && <span class="bad">: {s.error}{s.failures > 1 ? ` (${s.failures} times in a row)` : ''}</span>}
        {s.skipped && <span class="muted">; left out: {s.skipped}</span>}
      </span>
    </li>
  )
}
