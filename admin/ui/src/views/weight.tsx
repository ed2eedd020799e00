// A weight that is changed where it stands: Enter or leaving the field applies it, Escape does not.

import { useEffect, useRef, useState } from 'preact/hooks'
import { may } from '../api'
import type { Row } from './pool'
import { orderBackend } from './backend'

export function Weight({ of: r }: { of: Row }) {
  const [text, setText] = useState<string | null>(null), [failure, setFailure] = useState(''), [busy, setBusy] = useState(false)
  const input = useRef<HTMLInputElement>(null), button = useRef<HTMLButtonElement>(null)
  const editing = text !== null
  const over = useRef(false) // the field is left, and its going away is no leaving that applies it
  const byKey = useRef(false) // then the focus stays where the weight is
  useEffect(() => {
    if (editing) input.current?.select()
    else if (byKey.current) button.current?.focus()
    byKey.current = false
  }, [editing])
  if (!may('operate')) return <span class="number">{r.weight}</span>
  if (!editing) {
    return (
      <button
        ref={button} type="button" class="weight" title="Change the weight"
        aria-label={`Weight of ${r.address}: ${r.weight}. Change`} onClick={() => { over.current = false; setText(String(r.weight)) }}
      >{r.weight}</button>
    )
  }
  const stop = (): void => {
    over.current = true
    setText(null)
    setFailure('')
  }
  const apply = async (): Promise<void> => {
    const n = Number(text)
    if (text === '' || n === r.weight) return stop()
    if (!Number.isInteger(n) || n < 0) return setFailure('A whole number, 0 or more')
    setBusy(true)
    try {
      await orderBackend(r.pool, r.address, { weight: n })
      stop()
    } catch (e) {
      setFailure(e instanceof Error ? e.message : String(e))
    } finally {
      setBusy(false)
    }
  }
  return (
    <span class="weighing">
      <input
        ref={input} class="number" inputMode="numeric" aria-label={`New weight of ${r.address}`} aria-invalid={failure ? 'true' : undefined}
        value={text} readOnly={busy} onInput={(e) => setText(e.currentTarget.value)} onBlur={() => { if (!failure && !over.current) void apply() }}
        onKeyDown={(e) => {
          byKey.current = e.key === 'Enter' || e.key === 'Escape'
          if (e.key === 'Enter') { e.preventDefault(); void apply() }
          if (e.key === 'Escape') { e.preventDefault(); e.stopPropagation(); stop() }
        }}
      />
      {failure && <span class="bubble" role="alert">{failure}</span>}
    </span>
  )
}
