// Addresses are #/view/name?filter=…: they can be shared, and the back button works.

import { signal } from '@preact/signals'

export interface Place { path: string[]; query: URLSearchParams }

function parse(hash: string): Place {
  const [path = '', query = ''] = hash.replace(/^#?\/?/, '').split('?', 2)
  return { path: path.split('/').filter(Boolean).map(decoded), query: new URLSearchParams(query) }
}

// decoded takes what somebody has typed: a % that stands for nothing stays.
function decoded(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

export const place = signal(parse(location.hash))

addEventListener('hashchange', () => { place.value = parse(location.hash) })

export function href(path: string[], query: Record<string, string> = {}): string {
  const q = new URLSearchParams(query).toString()
  return '#/' + path.map(encodeURIComponent).join('/') + (q ? '?' + q : '')
}

export function go(...path: string[]): void {
  location.hash = href(path)
}

// setQuery changes the address in place: typing into a filter is not a step to go back to.
export function setQuery(changes: Record<string, string>): void {
  const { path, query } = place.peek()
  const next = new URLSearchParams(query)
  for (const [key, value] of Object.entries(changes)) value ? next.set(key, value) : next.delete(key)
  const q = next.toString()
  history.replaceState(null, '', '#/' + path.map(encodeURIComponent).join('/') + (q ? '?' + q : ''))
  place.value = { path, query: next }
}
