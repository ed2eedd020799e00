// The keyboard: / filters, ? lists the keys, g and a letter goes somewhere.

import { signal } from '@preact/signals'
import { go } from './router'
import { nextTheme } from './theme'
import { views } from './views'

export const helpOpen = signal(false)

let prefix = -Infinity // when g was pressed

function isTyping(e: KeyboardEvent): boolean {
  const at = e.composedPath()[0]
  return at instanceof HTMLElement && (at.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName))
}

export function listen(): void {
  addEventListener('keydown', (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || isTyping(e) || document.querySelector('dialog[open]')) return
    const after = e.timeStamp - prefix < 1500
    prefix = -Infinity
    if (after) {
      const view = views.find((v) => v.key === e.key)
      if (view) {
        e.preventDefault()
        go(...(view.path ? [view.path] : []))
      }
      return
    }
    switch (e.key) {
      case 'g':
        prefix = e.timeStamp
        break
      case '?':
        e.preventDefault()
        helpOpen.value = true
        break
      case 't':
        nextTheme()
        break
      case '/': {
        const filter = document.querySelector<HTMLInputElement>('[data-filter]')
        if (filter) {
          e.preventDefault()
          filter.focus()
          filter.select()
        }
      }
    }
  })
}
