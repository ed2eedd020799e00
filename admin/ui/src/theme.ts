// Dark or light: as the system has it, unless somebody chose.

import { effect, signal } from '@preact/signals'

export type Theme = 'system' | 'light' | 'dark'

const key = 'awe4lb-theme'
const system = matchMedia('(prefers-color-scheme: dark)')

function stored(): Theme {
  try {
    const t = localStorage.getItem(key)
    return t === 'light' || t === 'dark' ? t : 'system'
  } catch {
    return 'system' // a browser that lets pages store nothing
  }
}

export const theme = signal<Theme>(stored())

// dark is what is shown now.
export const dark = signal(false)

effect(() => {
  dark.value = theme.value === 'dark' || (theme.value === 'system' && system.matches)
  try {
    localStorage.setItem(key, theme.value)
  } catch { /* see stored */ }
})

system.addEventListener('change', () => { if (theme.peek() === 'system') dark.value = system.matches })
effect(() => { document.documentElement.dataset['theme'] = dark.value ? 'dark' : 'light' })

// nextTheme goes round: system, light, dark.
export function nextTheme(): void {
  theme.value = theme.peek() === 'system' ? 'light' : theme.peek() === 'light' ? 'dark' : 'system'
}
