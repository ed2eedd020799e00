// What a role may not do is not on the page: a button that never works is in the way of those that do, of the Tab key and of whoever
// listens. A sentence at the top of the view says what would be there, and who has it.

import { me, whyNot } from '../api'

type Acts = (string | false | undefined)[] // in words such as "draining"

const listed = (all: string[]): string => (all.length < 2 ? all.join() : `${all.slice(0, -1).join(', ')} and ${all.at(-1)}`)

// Beyond is that sentence; nothing where somebody may do all of it.
export function Beyond(p: { operate?: Acts; configure?: Acts }) {
  const who = me.value
  const parts = (['operate', 'configure'] as const).flatMap((role) => {
    const acts = whyNot(role) ? (p[role] ?? []).filter((a): a is string => Boolean(a)) : []
    return acts.length ? [`${listed(acts)} ${acts.length > 1 ? 'need' : 'needs'} ${role}`] : []
  })
  if (!who || parts.length === 0) return null
  const text = parts.join('; ')
  return (
    <p class="beyond muted">
      Your role is {who.role}. {text[0]!.toUpperCase() + text.slice(1)}. {who.login && who.how !== 'cookie' ? <a href="#/login">Log in</a> : null}
    </p>
  )
}
