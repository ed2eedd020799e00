// Two texts, line by line, with a little of what is around each difference.

import { structuredPatch } from 'diff'

export function TextDiff({ from, to }: { from: string; to: string }) {
  const { hunks } = structuredPatch('', '', from, to, '', '', { context: 2 })
  if (hunks.length === 0) return <p class="muted">The text is the same.</p>
  return (
    <table class="diff" aria-label="Lines that differ">
      <tbody>{hunks.map((h, i) => <Hunk key={i} lines={h.lines} old={h.oldStart} fresh={h.newStart} gap={i > 0} />)}</tbody>
    </table>
  )
}

function Hunk({ lines, old, fresh, gap }: { lines: string[]; old: number; fresh: number; gap: boolean }) {
  return (
    <>
      {gap && <tr class="gap"><td colSpan={3} aria-hidden="true">⋯</td></tr>}
      {lines.filter((l) => !l.startsWith('\\')).map((l, i) => {
        const sign = l[0], n = sign === '-' ? old++ : sign === '+' ? fresh++ : (old++, fresh++)
        return (
          <tr key={i} class={sign === '+' ? 'plus' : sign === '-' ? 'minus' : undefined}>
            <td class="number">{n}</td>
            <td class="sign">{sign === '+' ? <><span aria-hidden="true">+</span><span class="sr">added</span></> : sign === '-' ? <><span aria-hidden="true">−</span><span class="sr">removed</span></> : null}</td>
            <td><code>{l.slice(1)}</code></td>
          </tr>
        )
      })}
    </>
  )
}
