// The box that / leads to.

export function Filter(p: { value: string; label: string; onInput: (v: string) => void }) {
  return (
    <span class="filter">
      <input
        type="search" data-filter aria-label={p.label} placeholder="Filter" aria-keyshortcuts="/" autoComplete="off" spellcheck={false}
        value={p.value} onInput={(e) => p.onInput(e.currentTarget.value)}
        onKeyDown={(e) => { if (e.key === 'Escape') e.currentTarget.blur() }}
      />
      <kbd aria-hidden="true">/</kbd>
    </span>
  )
}
