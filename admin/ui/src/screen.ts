// How much room there is, in the words of the style sheet: what a screen has no room for is not made at all.

import { signal } from '@preact/signals'

export type Room = 'narrow' | 'middle' | 'wide'

const phone = matchMedia('(max-width: 960px)'), small = matchMedia('(max-width: 1360px)'), large = matchMedia('(min-width: 1641px)')

const now = (): Room => (phone.matches ? 'narrow' : small.matches ? 'middle' : 'wide')

export const room = signal<Room>(now())

// roomy: there is room for columns that a laptop has none for.
export const roomy = signal(large.matches)

large.addEventListener('change', () => { roomy.value = large.matches })

for (const query of [phone, small]) query.addEventListener('change', () => { room.value = now() })

// fits reports whether what is shown from a width on is shown now.
export function fits(from: 'roomy' | 'wide' | 'middle' | undefined): boolean {
  if (from === 'roomy') return roomy.value
  return from === undefined || room.value === 'wide' || from === room.value
}
