// What the page costs the browser's main thread with 1,000 backends of which every number changes every second. What is wanted is
// said in counts, which do not depend on how fast the machine is; times are printed.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { chromium } from 'playwright-core'
import { busy, proxy } from './busy.mjs'
import { many, password, start, until } from './rig.mjs'

let rig, between, browser, page, devtools

before(async () => {
  rig = await start(process.env.AWE4LB)
  between = await proxy()
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium-headless-shell', args: ['--no-sandbox', '--disable-gpu', '--no-proxy-server'] })
  page = await browser.newPage({ viewport: { width: 1920, height: 1080 } })
  devtools = await browser.newBrowserCDPSession()
  await page.goto(busy)
  await page.getByLabel('Name').fill('ada')
  await page.getByLabel('Password').fill(password)
  await page.getByRole('button', { name: 'Log in' }).click()
  await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor()
})

after(async () => {
  await browser?.close()
  between?.end()
  await rig?.end()
})

// trace returns the events of the browser's own trace while what runs.
async function trace(what) {
  const events = [], add = ({ value }) => events.push(...value)
  devtools.on('Tracing.dataCollected', add)
  await devtools.send('Tracing.start', { transferMode: 'ReportEvents', traceConfig: { includedCategories: ['devtools.timeline', 'toplevel', 'disabled-by-default-devtools.timeline', '__metadata'] } })
  await what()
  const done = new Promise((resolve) => devtools.once('Tracing.tracingComplete', resolve))
  await devtools.send('Tracing.end')
  await done
  devtools.off('Tracing.dataCollected', add)
  return events
}

const kinds = { script: ['FunctionCall', 'EvaluateScript', 'EventDispatch', 'TimerFire', 'FireAnimationFrame', 'v8.callFunction'], style: ['UpdateLayoutTree'], layout: ['Layout'] }

// judge says what the main thread of the page has done, by the thread's own clock: a busy machine does not add to it. A frame is
// 16.7 ms; its work is that of the tasks that began in it.
function judge(events, seconds) {
  const threads = new Map(events.filter((e) => e.name === 'thread_name').map((e) => [`${e.pid} ${e.tid}`, e.args.name]))
  const pages = new Set(events.filter((e) => e.name === 'FunctionCall' && JSON.stringify(e.args).includes(busy)).map((e) => e.pid))
  const mine = events.filter((e) => e.ph === 'X' && pages.has(e.pid) && threads.get(`${e.pid} ${e.tid}`) === 'CrRendererMain').sort((a, b) => a.ts - b.ts || b.dur - a.dur)
  const ms = { script: 0, style: 0, layout: 0 }, work = new Map()
  let layouts = 0, forced = 0, gc = 0
  const open = [] // the events around this one
  for (const e of mine) {
    while (open.length && open.at(-1).ts + open.at(-1).dur <= e.ts) open.pop()
    const kind = Object.keys(kinds).find((k) => kinds[k].includes(e.name)), outer = open.findLast((o) => o.kind)
    const own = (e.tdur ?? e.dur) / 1000
    if (kind && !(kind === 'script' && outer?.kind === 'script')) {
      ms[kind] += own
      if (outer) ms[outer.kind] -= own
    }
    if (e.name === 'Layout') layouts++
    if ((kind === 'layout' || kind === 'style') && outer?.kind === 'script') forced++
    if (e.name === 'MajorGC' || e.name === 'MinorGC') gc += own
    if (e.name === 'RunTask' || e.name === 'ThreadControllerImpl::RunTask') {
      if (!open.some((o) => o.task)) {
        const frame = Math.floor(e.ts / 16_667)
        work.set(frame, (work.get(frame) ?? 0) + own)
      }
    }
    open.push({ ts: e.ts, dur: e.dur, kind, task: /RunTask$/.test(e.name) })
  }
  const late = [...work.values()].filter((w) => w > 16.7), frames = Math.round(seconds * 60)
  return { ms: Object.fromEntries(Object.entries(ms).map(([k, v]) => [k, v / seconds])), layouts, forced, gc: gc / seconds, late: late.length, frames, worst: Math.max(0, ...work.values()), tasks: work.size }
}

// touched counts what changes in the document: rows, and nodes made, moved or rewritten.
const watch = () => page.evaluate(() => {
  const seen = { rows: 0, nodes: 0, made: 0, most: 0 } // most: rows touched at once
  const observer = new MutationObserver((records) => {
    const rows = new Set()
    for (const r of records) {
      seen.nodes += r.type === 'childList' ? r.addedNodes.length + r.removedNodes.length : 1
      seen.made += r.addedNodes.length
      const at = r.target instanceof Element ? r.target : r.target.parentElement
      const row = at?.closest('tr[data-row]')
      if (row) rows.add(row)
    }
    seen.rows += rows.size
    seen.most = Math.max(seen.most, rows.size)
  })
  observer.observe(document.querySelector('main'), { subtree: true, childList: true, attributes: true, characterData: true })
  window.touched = () => { observer.disconnect(); return seen }
})

// measure lets n samples pass while what runs, if anything, and says what each cost.
async function measure(title, n, what = async () => {}) {
  await watch()
  let began, ended, samples
  const events = await trace(async () => {
    const first = between.samples()
    began = performance.now()
    await what()
    await until(`${n} samples`, () => between.samples() >= first + n, 60)
    ended = performance.now()
    samples = between.samples() - first
  })
  const seen = await page.evaluate(() => window.touched()), seconds = (ended - began) / 1000
  const j = judge(events, seconds)
  assert.ok(j.tasks > 0, 'the trace has nothing of the page')
  console.log(`${title}: a second of live data takes ${j.ms.script.toFixed(1)} ms of script, ${j.ms.style.toFixed(1)} of style, ${j.ms.layout.toFixed(1)} of layout, ${j.gc.toFixed(1)} of collecting garbage; `
    + `${j.late} of ${j.frames} frames have more than 16.7 ms of work on the main thread, the worst ${j.worst.toFixed(1)} ms. `
    + `A sample: ${(seen.rows / samples).toFixed(1)} rows and ${(seen.nodes / samples).toFixed(0)} nodes touched, ${(seen.made / samples).toFixed(0)} made, ${(j.layouts / samples).toFixed(1)} layouts, ${(j.forced / samples).toFixed(1)} forced`)
  return { ...j, ...seen, samples }
}

const live = () => page.locator('.link-state', { hasText: 'Live' }).waitFor()

// What each sample may cost at most, whatever the machine: rows and nodes of the document that are touched, times that it is laid out,
// and how often script makes the browser do that before it would by itself.
function costs(m, most) {
  for (const [what, n] of Object.entries(most)) {
    assert.ok(m[what] / m.samples <= n, `a sample costs ${(m[what] / m.samples).toFixed(1)} ${what}; at most ${n} are wanted`)
  }
}

test('the overview of 1,000 busy backends', async () => {
  await live()
  await page.locator('.plot canvas').nth(3).waitFor()
  costs(await measure('overview', 10), { rows: 0, nodes: 150, layouts: 5, forced: 1.5 })
})

test('a pool of 1,000 busy backends, looked at', async () => {
  await page.goto(busy + '/#/pools/many')
  await page.locator('tr[data-row]').nth(20).waitFor()
  assert.equal(await page.getByRole('table').getAttribute('aria-rowcount'), String(many + 1))
  await live()
  const there = await page.locator('tr[data-row]').count(), m = await measure('pool', 10)
  assert.ok(there < 60, `${there} rows exist at once`)
  assert.ok(m.most <= 10, `${m.most} rows get new values at once; the others have their turn in the next frames`)
  assert.ok(m.rows > 5 * m.samples, 'the rows have no news: this proves nothing')
  costs(m, { rows: 1.3 * there, nodes: 25 * there, made: there, layouts: 12, forced: 0.5 }) // a sample at the edge may count twice
})

test('a pool of 1,000 busy backends, sorted by what changes', async () => {
  await page.goto(busy + '/#/pools/many?sort=-b2c')
  await page.locator('th[aria-sort]').waitFor()
  const there = await page.locator('tr[data-row]').count()
  costs(await measure('pool, sorted by a rate', 10), { rows: 2 * there, nodes: 80 * there, layouts: 12, forced: 2 })
})

test('a pool of 1,000 busy backends, scrolled', async () => {
  await page.goto(busy + '/#/')
  await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor()
  await page.goto(busy + '/#/pools/many')
  await page.locator('tr[data-row]').nth(20).waitFor()
  const settled = between.samples()
  await until('it is drawn', () => between.samples() > settled)
  await page.mouse.move(900, 600)
  // 30 rows a second, at the pace of the browser and not of this program.
  const wheel = await page.context().newCDPSession(page)
  const m = await measure('pool, scrolled', 6, () => wheel.send('Input.synthesizeScrollGesture', { x: 900, y: 600, yDistance: -14_400, speed: 1200, gestureSourceType: 'mouse' }))
  const far = await page.evaluate(() => scrollY)
  assert.ok(far > 10_000, `it scrolled ${far} px`)
  // A row that comes has some 60 nodes, and another goes for it.
  const came = far / 40 / m.samples, there = await page.locator('tr[data-row]').count()
  assert.ok(there < 60, `${there} rows exist at once`)
  costs(m, { rows: 1.3 * there + 2 * came, made: 2 * came + there })
  assert.ok(m.forced < 1.5 * m.frames, `${m.forced} layouts were forced in ${m.frames} frames`)
})

test('quiet backends cost nothing', async () => {
  between.quiet()
  await page.goto(busy + '/#/')
  await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor()
  await page.goto(busy + '/#/pools/many?q=127.77.17')
  await page.getByText('127.77.17.10:9000').waitFor()
  const last = between.samples() // the next one is the first without rates
  await until('the quiet has come', () => between.samples() > last + 2)
  const m = await measure('pool, quiet', 5)
  costs(m, { rows: 0.5, made: 2 })
})
