// A question that needs an answer. The browser's own dialog holds the focus and gives it back.

import type { ComponentChildren } from 'preact'
import { useEffect, useId, useRef, useState } from 'preact/hooks'
import { Button, Failure } from './basics'

export function Dialog(p: { title: string; onClose: () => void; children: ComponentChildren; wide?: boolean }) {
  const ref = useRef<HTMLDialogElement>(null), id = useId()
  useEffect(() => {
    const before = document.activeElement
    ref.current?.showModal()
    return () => { // one that is taken away open gives the focus to nobody
      if (document.activeElement === document.body && before instanceof HTMLElement) before.focus({ preventScroll: true })
    }
  }, [])
  return (
    <dialog
      ref={ref} class={p.wide ? 'wide' : undefined} aria-labelledby={id} onClose={p.onClose}
      onClick={(e) => { if (e.target === ref.current) ref.current?.close() }}
    >
      <div class="dialog">
        <h2 id={id}>{p.title}</h2>
        {p.children}
      </div>
    </dialog>
  )
}

// Confirm says what will happen and does it. What fails stays on the screen, and so does what was typed.
export function Confirm(p: {
  title: string
  children?: ComponentChildren
  act: string // the word on the button
  danger?: boolean
  whyNot?: string | undefined
  typed?: string // has to be typed first
  onAct: () => Promise<unknown>
  onClose: () => void
}) {
  const [busy, setBusy] = useState(false), [failure, setFailure] = useState<unknown>(null), [text, setText] = useState('')
  const id = useId()
  const missing = p.typed !== undefined && text.trim() !== p.typed
  const act = async (): Promise<void> => {
    setBusy(true)
    setFailure(null)
    try {
      await p.onAct()
      p.onClose()
    } catch (e) {
      setFailure(e)
      setBusy(false)
    }
  }
  return (
    <Dialog title={p.title} onClose={p.onClose}>
      <form onSubmit={(e) => { e.preventDefault(); if (!missing && !busy && !p.whyNot) void act() }}>
        {p.children}
        {p.typed !== undefined && (
          <p class="field">
            <label for={id}>Type <strong>{p.typed}</strong> to go on</label>
            <input id={id} value={text} autoComplete="off" onInput={(e) => setText(e.currentTarget.value)} />
          </p>
        )}
        <Failure of={failure} />
        <div class="buttons">
          <Button onClick={p.onClose}>Cancel</Button>
          <Button kind={p.danger ? 'danger' : 'main'} busy={busy} whyNot={p.whyNot || (missing ? `Type ${p.typed} first.` : '')} onClick={() => void act()}>
            {p.act}
          </Button>
        </div>
      </form>
    </Dialog>
  )
}
