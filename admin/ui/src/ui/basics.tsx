// Small things that all views are made of.

import type { ComponentChildren } from 'preact'
import { useEffect, useId, useRef } from 'preact/hooks'
import { Problem } from '../api'

// Button does what it says. Where whyNot gives a reason it is off and says that instead: to who listens, as its description, and in
// a bubble to who points at it, comes to it by key or presses it. For that it keeps the focus.
export function Button(p: {
  children: ComponentChildren
  onClick: () => void
  whyNot?: string | undefined
  kind?: 'plain' | 'main' | 'danger' | undefined
  busy?: boolean
  label?: string
  small?: boolean
}) {
  const off = Boolean(p.whyNot) || Boolean(p.busy), reason = useId()
  return (
    <>
      <button
        type="button"
        class={`button ${p.kind ?? 'plain'}${p.small ? ' small' : ''}`}
        aria-disabled={off ? 'true' : undefined}
        aria-busy={p.busy ? 'true' : undefined}
        aria-label={p.label}
        aria-describedby={p.whyNot ? reason : undefined}
        onClick={() => { if (!off) p.onClick() }}
      >
        {p.children}
      </button>
      {p.whyNot && <Reason id={reason} text={p.whyNot} />}
    </>
  )
}

// Reason is the bubble of the button before it. It lies above everything, dialogs too; Escape takes it away.
function Reason({ id, text }: { id: string; text: string }) {
  const ref = useRef<HTMLSpanElement>(null)
  useEffect(() => {
    const bubble = ref.current!, button = bubble.previousElementSibling as HTMLElement
    const show = (): void => {
      if (bubble.matches(':popover-open')) return
      bubble.showPopover()
      const b = button.getBoundingClientRect(), { offsetWidth: width, offsetHeight: height } = bubble
      bubble.style.left = `${Math.max(8, Math.min(b.right - width, innerWidth - width - 8))}px`
      bubble.style.top = `${b.bottom + 6 + height < innerHeight ? b.bottom + 6 : b.top - 6 - height}px`
    }
    const hide = (): void => bubble.hidePopover()
    const told = new AbortController(), { signal } = told
    button.addEventListener('pointerenter', (e) => { if (e.pointerType === 'mouse') show() }, { signal })
    button.addEventListener('pointerleave', (e) => { if (e.pointerType === 'mouse') hide() }, { signal })
    button.addEventListener('focus', () => { if (button.matches(':focus-visible')) show() }, { signal })
    button.addEventListener('blur', hide, { signal })
    button.addEventListener('click', show, { signal })
    addEventListener('scroll', hide, { signal, passive: true, capture: true })
    return () => told.abort()
  }, [])
  return <span ref={ref} id={id} class="bubble reason" role="tooltip" popover="auto">{text}</span>
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
