// How much room there is, in the words of the style sheet: what a screen has no room for is not made at all.

import { signal } from '@preact/signals'

export type Room = 'narrow' | 'middle' | 'wide'

const phone = matchMedia('(max-width: 720px)'), small = matchMedia('(max-width: 1360px)')

const now = (): Room => (phone.matches ? 'narrow' : small.matches ? 'middle' : 'wide')

export const room = signal<Room>(now())

for (const query of [phone, small]) query.addEventListener('change', () => { room.value = now() })

// fits reports whether what is shown from a width on is shown now.
export const fits = (from: 'wide' | 'middle' | undefined): boolean => from === undefined || room.value === 'wide' || from === room.value
