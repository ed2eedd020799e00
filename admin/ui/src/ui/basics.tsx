// Small things that all views are made of.

import type { ComponentChildren } from 'preact'
import { Problem } from '../api'

// Button does what it says. Where whyNot gives a reason it is disabled and says that instead; it keeps the focus, so that the
// reason can be heard.
export function Button(p: {
  children: ComponentChildren
  onClick: () => void
  whyNot?: string | undefined
  kind?: 'plain' | 'main' | 'danger' | undefined
  busy?: boolean
  label?: string
  small?: boolean
}) {
  const off = Boolean(p.whyNot) || Boolean(p.busy)
  return (
    <button
      type="button"
      class={`button ${p.kind ?? 'plain'}${p.small ? ' small' : ''}`}
      aria-disabled={off ? 'true' : undefined}
      aria-busy={p.busy ? 'true' : undefined}
      aria-label={p.label && (p.whyNot ? `${p.label}. ${p.whyNot}` : p.label)}
      title={p.whyNot || undefined}
      onClick={() => { if (!off) p.onClick() }}
    >
      {p.children}
    </button>
  )
}

// Failure says what the server said, and stays.
export function Failure({ of }: { of: unknown }) {
  if (!of) return null
  const mistakes = of instanceof Problem ? of.mistakes : []
  return (
    <div class="failure" role="alert">
      <p>{of instanceof Error ? of.message : String(of)}</p>
      {mistakes.length > 0 && <ul>{mistakes.map((m) => <li key={m.message}>{m.message}</li>)}</ul>}
    </div>
  )
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return <div class="empty"><p class="strong">{title}</p>{children}</div>
}

// Heading begins a view.
export function Heading({ title, children, above }: { title: string; children?: ComponentChildren; above?: ComponentChildren }) {
  return (
    <header class="heading">
      {above && <p class="above">{above}</p>}
      <div class="row">
        <h1 tabIndex={-1}>{title}</h1>
        {children}
      </div>
    </header>
  )
}

// Facts are names with values; long ones get a line of their own where there is little room.
export function Facts({ of }: { of: [string, ComponentChildren, 'long'?][] }) {
  return <dl class="facts">{of.map(([name, value, long]) => <div key={name} class={long}><dt>{name}</dt><dd>{value}</dd></div>)}</dl>
}
