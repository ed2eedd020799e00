// The editor, a chunk of its own. It lives in a shadow root: there CodeMirror adopts its style sheet instead of writing a
// <style>, and the policy of the page needs no exception.

import { defaultKeymap, history, historyKeymap } from '@codemirror/commands'
import { HighlightStyle, StreamLanguage, syntaxHighlighting } from '@codemirror/language'
import { lintGutter, setDiagnostics, type Diagnostic } from '@codemirror/lint'
import { toml } from '@codemirror/legacy-modes/mode/toml'
import { highlightSelectionMatches, search, searchKeymap } from '@codemirror/search'
import { EditorState } from '@codemirror/state'
import { EditorView, drawSelection, highlightActiveLine, highlightActiveLineGutter, keymap, lineNumbers } from '@codemirror/view'
import { tags } from '@lezer/highlight'
import { unplaced } from './format'
import type { Mistake } from './types'

export interface Editor {
  set: (text: string) => void
  mark: (mistakes: Mistake[]) => void
  goTo: (line: number) => void
  put: (at: number, text: string, selected: [number, number]) => void // as if it was typed
  destroy: () => void
}

// The tokens of the page reach into the shadow root, so light and dark follow by themselves.
const look = EditorView.theme({
  '&': { color: 'var(--text)', backgroundColor: 'var(--ground)', fontSize: '13px', height: '100%' },
  '&.cm-focused': { outline: '2px solid var(--accent)', outlineOffset: '-1px' },
  '.cm-scroller': { fontFamily: 'var(--mono)', lineHeight: '20px' },
  '.cm-content': { caretColor: 'var(--text)', padding: '8px 0' },
  '.cm-gutters': { backgroundColor: 'var(--raised)', color: 'var(--muted)', border: '0', borderRight: '1px solid var(--line)' },
  '.cm-activeLine, .cm-activeLineGutter': { backgroundColor: 'var(--hover)' },
  '.cm-cursor': { borderLeftColor: 'var(--text)' },
  '&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground': { backgroundColor: 'var(--accent-soft)' },
  '.cm-selectionMatch, .cm-searchMatch': { backgroundColor: 'var(--warn-soft)' },
  '.cm-tooltip, .cm-panels': { backgroundColor: 'var(--raised)', color: 'var(--text)', border: '1px solid var(--line)' },
  '.cm-diagnostic-error': { borderLeft: '3px solid var(--bad-line)' },
  '.cm-lintRange-error': { backgroundImage: 'none', textDecoration: 'underline wavy var(--bad-line)', textUnderlineOffset: '3px' },
})

const colours = HighlightStyle.define([
  { tag: tags.comment, color: 'var(--muted)' },
  { tag: [tags.string, tags.special(tags.string)], color: 'var(--ok)' },
  { tag: [tags.number, tags.bool, tags.atom], color: 'var(--hold)' },
  { tag: [tags.propertyName, tags.definition(tags.variableName), tags.variableName], color: 'var(--accent)' },
  { tag: [tags.keyword, tags.standard(tags.name), tags.bracket, tags.heading], color: 'var(--series-2)', fontWeight: '600' },
])

// replaceSelected does what typing over a selection means before Chrome does: it would give the new text the colours of the
// old as a style attribute, which the policy of the page forbids.
function replaceSelected(e: InputEvent, view: EditorView): boolean {
  if (e.inputType !== 'insertText' || e.data === null || e.isComposing || view.state.readOnly || view.state.selection.main.empty) return false
  e.preventDefault()
  view.dispatch(view.state.replaceSelection(e.data), { userEvent: 'input.type', scrollIntoView: true })
  return true
}

// edit puts an editor with text into box.
export function edit(box: HTMLElement, label: string, text: string, readOnly: boolean, onChange: (text: string) => void): Editor {
  const root = box.shadowRoot ?? box.attachShadow({ mode: 'open' })
  const host = document.createElement('div')
  host.style.height = '100%'
  root.replaceChildren(host)
  let quiet = false // while we set the text ourselves
  const view = new EditorView({
    parent: host,
    root,
    state: EditorState.create({
      doc: text,
      extensions: [
        lineNumbers(), lintGutter(), history(), drawSelection(), highlightActiveLine(), highlightActiveLineGutter(), highlightSelectionMatches(),
        ...(matchMedia('(max-width: 960px)').matches ? [EditorView.lineWrapping] : []),
        search({ top: true }), StreamLanguage.define(toml), syntaxHighlighting(colours), look,
        // Tab leaves the editor, as everywhere on the page.
        keymap.of([...searchKeymap, ...historyKeymap, ...defaultKeymap]),
        EditorState.readOnly.of(readOnly),
        EditorView.contentAttributes.of({ 'aria-label': label, spellcheck: 'false', tabindex: '0' }),
        EditorView.domEventHandlers({ beforeinput: replaceSelected }),
        EditorView.updateListener.of((u) => { if (u.docChanged && !quiet) onChange(u.state.doc.toString()) }),
      ],
    }),
  })
  const lineOf = (n: number | undefined) => view.state.doc.line(Math.min(Math.max(n ?? 1, 1), view.state.doc.lines))
  const come = (): void => {
    view.focus()
    box.scrollIntoView({ block: 'nearest' })
  }
  return {
    set: (next) => {
      if (next === view.state.doc.toString()) return // whoever types keeps the cursor
      quiet = true
      view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: next } })
      quiet = false
    },
    mark: (mistakes) => {
      const all = mistakes.map((m): Diagnostic => {
        const line = lineOf(m.line), indent = /^\s*/.exec(line.text)![0].length
        return { from: line.from + indent, to: line.to, severity: 'error', message: unplaced(m) }
      })
      view.dispatch(setDiagnostics(view.state, all))
    },
    goTo: (n) => {
      const line = lineOf(n)
      view.dispatch({ selection: { anchor: line.from }, effects: EditorView.scrollIntoView(line.from, { y: 'center' }) })
      come()
    },
    put: (at, text, [anchor, head]) => {
      view.dispatch({ changes: { from: at, insert: text }, selection: { anchor, head }, userEvent: 'input', effects: EditorView.scrollIntoView(anchor, { y: 'center' }) })
      come()
    },
    destroy: () => view.destroy(),
  }
}
