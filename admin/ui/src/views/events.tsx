// What has happened to backends and to the lists of them, the newest first.

import { exact, plural, span } from '../format'
import { events, now, stale } from '../live'
import { href, place, setQuery } from '../router'
import type { Event } from '../types'
import { Empty, Heading } from '../ui/basics'
import { Filter } from '../ui/filter'
import { Ago } from '../ui/num'
import { Mark, tone, type Tone } from '../ui/state'
import { Audit } from './audit'

export function Events() {
  void now.value
  const q = place.value.query.get('q') ?? ''
  const tab = place.value.query.get('tab') === 'audit' ? 'audit' : 'events'
  const heading = (
    <Heading title="Events">
      <span class="row">
        <span class="tabs" role="group" aria-label="Parts">
          <button type="button" aria-pressed={tab === 'events'} onClick={() => setQuery({ tab: '' })}>What happened</button>
          <button type="button" aria-pressed={tab === 'audit'} onClick={() => setQuery({ tab: 'audit' })}>Who did what</button>
        </span>
        <Filter value={q} onInput={(v) => setQuery({ q: v })} label={tab === 'audit' ? 'Filter calls' : 'Filter events'} />
      </span>
    </Heading>
  )
  if (tab === 'audit') return <>{heading}<Audit q={q} /></>
  const shown = events.value.filter((e) => words(e).toLowerCase().includes(q.toLowerCase()))
  return (
    <>
      {heading}
      {events.value.length === 0
        ? <Empty title="Nothing has happened since the start."><p>Changes of backends' health and of discovered lists are kept here. Backends need a <code>[pools.NAME.health]</code> table to be checked.</p></Empty>
        : shown.length === 0
          ? <Empty title={`No event has “${q}”.`}><p><a href="#/events">Show all {exact(events.value.length)}</a></p></Empty>
          : <ol class={stale.value ? 'events stale' : 'events'}>{shown.slice(0, 500).map((e, i) => <EventRow key={e.time + i} of={e} />)}</ol>}
    </>
  )
}

const troubles = ['held', 'failing', 'stale', 'save']

// what says what happened in one word, with the tone of it.
function what(e: Event): { word: string; tone: Tone } {
  if (e.discovery) return { word: e.discovery.event, tone: troubles.includes(e.discovery.event) ? 'warn' : 'ok' }
  return e.what === 'weight' ? { word: 'weight', tone: 'off' } : { word: e.to, tone: tone(e.to) }
}

function words(e: Event): string {
  return [e.pool, e.backend, e.discovery?.source, e.discovery?.event, e.to, e.what, e.why, e.by].filter(Boolean).join(' ')
}

export function EventRow({ of: e }: { of: Event }) {
  const w = what(e)
  const d = e.discovery, counts = d?.event === 'change'
    ? [d.added && `${d.added} added`, d.removed && `${d.removed} removed`, d.changed && `${d.changed} changed`, `${plural(d.backends, 'backend')} now`].filter(Boolean).join(', ')
    : ''
  return (
    <li>
      <span class={`state ${w.tone}`}><Mark tone={w.tone} />{w.word}</span>
      <a href={e.backend ? href(['pools', e.pool], { backend: e.backend }) : href(['pools', e.pool])}>{e.pool}{e.backend ? ' / ' + e.backend : d?.source ? ' / ' + d.source : ''}</a>
      <span class="why">{[e.what === 'weight' ? `from ${e.from} to ${e.to}` : '', e.why === e.to ? '' : e.why, counts].filter(Boolean).join(': ')}<span class="muted">{e.by ? ` by ${e.by.replace(/^\w+:/, '')}` : ''}{e.after_seconds ? ` after ${span(e.after_seconds)}` : ''}</span></span>
      <Ago at={e.time} />
    </li>
  )
}
