// States of backends: a word, a shape and a colour, so that none of them is needed alone.

export type Tone = 'ok' | 'bad' | 'warn' | 'hold' | 'off'

const tones: Record<string, Tone> = {
  up: 'ok', down: 'bad', ejected: 'bad', drain: 'warn', draining: 'warn', maintenance: 'hold', disabled: 'off', checking: 'off',
}

export const tone = (state: string): Tone => tones[state] ?? 'off'

const meanings: Record<string, string> = {
  up: 'takes new sessions',
  down: 'its health check fails: no new sessions',
  ejected: 'it failed too many clients: not used for a time',
  drain: 'by order: no new sessions, those it has go on',
  draining: 'no longer configured; its last sessions go on',
  maintenance: 'by order: not used',
  disabled: 'its weight is 0: no new sessions',
}

function Shape({ of }: { of: Tone }) {
  switch (of) {
    case 'ok': return <circle cx="6" cy="6" r="4.5" fill="currentColor" />
    case 'bad': return <path d="M2 2l8 8M10 2l-8 8" stroke="currentColor" stroke-width="2.4" stroke-linecap="round" />
    case 'warn': return <path d="M6 1.5a4.5 4.5 0 0 0 0 9z" fill="currentColor" />
    case 'hold': return <path d="M2.5 1.5v9M9.5 1.5v9" stroke="currentColor" stroke-width="3" />
    case 'off': return <circle cx="6" cy="6" r="4" fill="none" stroke="currentColor" stroke-width="1.8" />
  }
}

export function Mark({ tone }: { tone: Tone }) {
  return (
    <svg class={`mark ${tone}`} viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">
      {tone === 'warn' && <circle cx="6" cy="6" r="4" fill="none" stroke="currentColor" stroke-width="1.6" />}
      <Shape of={tone} />
    </svg>
  )
}

export function State({ state }: { state: string }) {
  const t = tone(state)
  return <span class={`state ${t}`} title={meanings[state]}><Mark tone={t} />{state}</span>
}
