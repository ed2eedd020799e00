// The page in a real browser, in front of a real awe4lb with traffic. `make ui-test` runs this.
//
// AWE4LB is the binary; SHOTS, if set, a folder for the pictures of docs/ui.md.

import assert from 'node:assert/strict'
import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { chromium } from 'playwright-core'
import { admin, backends, dead, find, hold, many, password, start, until } from './rig.mjs'

const axe = fs.readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const shots = process.env.SHOTS
const pictures = fs.readFileSync(new URL('../../../docs/ui.md', import.meta.url), 'utf8')
const wide = { width: 1920, height: 1080 }, tablet = { width: 1024, height: 768 }, phone = { width: 390, height: 844 }

let rig, browser, page
const strayed = [], errors = [], refused = []

before(async () => {
  rig = await start(process.env.AWE4LB)
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium-headless-shell', args: ['--no-sandbox', '--disable-gpu', '--no-proxy-server'] })
  page = watched(await (await browser.newContext({ viewport: wide, colorScheme: 'light' })).newPage())
})

// watched notes what a page does that it should not.
function watched(page) {
  page.setDefaultTimeout(15_000)
  page.on('request', (r) => { if (!r.url().startsWith(admin + '/') && !r.url().startsWith('data:')) strayed.push(r.url()) })
  page.on('pageerror', (e) => errors.push(e.stack))
  page.on('console', (m) => {
    if (m.type() !== 'error' && m.type() !== 'warning') return
    // The browser itself writes a line for each answer that is a refusal; those that a test provokes are in refused.
    const at = m.location().url
    if (/Failed to load resource/.test(m.text()) && refused.some((r) => r.test(at))) return
    errors.push(`${m.text()} (${at})`)
  })
  return page
}

after(async () => {
  await browser?.close()
  await rig?.end()
})

const heading = (name, at = page) => at.getByRole('heading', { level: 1, name, exact: true })

async function visit(hash, name, at = page) {
  await at.goto(admin + '/' + hash)
  await heading(name, at).waitFor()
}

async function logIn(name, at = page) {
  await at.getByLabel('Name').fill(name)
  await at.getByLabel('Password').fill(password)
  await at.getByRole('button', { name: 'Log in' }).click()
  await heading('Overview', at).waitFor()
}

// api asks with the cookie of the page.
const api = (path) => page.evaluate(async (p) => (await fetch('/api/v1' + p)).json(), path)

// reason is what a button says that is off, to who listens.
const reason = (button) => button.evaluate((b) => document.getElementById(b.getAttribute('aria-describedby'))?.textContent)

const row = (address) => page.locator('tr[data-row]', { hasText: address })

async function shot(name, at = page) {
  if (!shots || !pictures.includes(`ui/${name}.png`)) return
  await at.waitForTimeout(1500) // for a second of traffic
  await at.screenshot({ path: path.join(shots, name + '.png') })
}

async function accessible(what, at = page) {
  await at.evaluate(axe)
  const { violations } = await at.evaluate(() => axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }))
  const found = violations.map((v) => `${v.id}: ${v.help}\n${v.nodes.map((n) => '  ' + n.html.slice(0, 200) + '\n  ' + n.failureSummary).join('\n')}`)
  assert.deepEqual(found, [], what)
}

test('who has no credentials logs in', async () => {
  await page.goto(admin)
  await page.getByLabel('Name').fill('ada')
  await page.getByLabel('Password').fill('wrong password')
  refused.push(/\/api\/v1\/login$/)
  await page.getByRole('button', { name: 'Log in' }).click()
  await page.getByRole('alert').filter({ hasText: 'wrong credentials' }).waitFor()
  assert.equal(await page.getByLabel('Name').inputValue(), 'ada', 'what was typed is gone')
  await accessible('login')
  await logIn('ada')
})

test('the overview says what is wrong, and moves', async () => {
  await page.getByRole('status').filter({ hasText: /1 of 1,008 backends down since/ }).waitFor()
  await page.getByRole('link', { name: `web / ${dead}` }).first().waitFor()
  const picture = () => page.locator('.plot canvas').first().evaluate((c) => c.toDataURL())
  const value = () => page.locator('figure', { hasText: 'Bytes' }).locator('.value').first().textContent()
  const [was, first] = [await picture(), await value()]
  await until('the chart moves', async () => (await picture()) !== was)
  await until('the numbers move', async () => (await value()) !== first)
  assert.equal(await page.locator('.plot canvas').count(), 4)
  await until('lines have the weight of their traffic', () => page.locator('g.link.ok:not(.idle) path').count())
  const box = await page.locator('.plot').first().boundingBox()
  await page.mouse.move(box.x + box.width * 0.95, box.y + 40)
  await until('all charts show the moment under the cursor', async () => (await page.locator('.legend .at').count()) === 4)
})

test('a backend is drained and comes back', async () => {
  await visit('#/pools/web', 'web')
  const held = await hold('127.77.1.200')
  const address = (await api('/sessions?client=127.77.1.200')).sessions[0].backend
  await row(address).getByRole('button', { name: `Drain ${address}` }).click()
  const dialog = page.getByRole('dialog')
  await dialog.getByText('It gets no new sessions').waitFor()
  await shot('drain')
  await accessible('a question')
  await dialog.getByRole('button', { name: 'Drain' }).click()
  await dialog.waitFor({ state: 'detached' })
  await row(address).locator('.state:visible', { hasText: 'drain' }).waitFor()
  const of = async () => (await api('/pools/web')).backends.find((b) => b.address === address)
  assert.equal((await of()).state, 'drain')
  const { connected } = await of()
  const others = async () => (await api('/pools/web')).backends.reduce((n, b) => n + b.connected, 0)
  const before = await others()
  await until('the others go on', async () => (await others()) > before + 5)
  assert.equal((await of()).connected, connected, 'a drained backend got new sessions')
  await row(address).getByRole('button', { name: `Enable ${address}` }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Enable' }).click()
  await row(address).locator('.state:visible', { hasText: 'up' }).waitFor()
  await until('it gets sessions again', async () => (await of()).connected > connected)
  held.destroy()
})

test('a weight is changed where it stands', async () => {
  const address = backends[1], of = async () => (await api('/pools/web')).backends.find((b) => b.address === address)
  await row(address).getByRole('button', { name: `Weight of ${address}` }).click()
  const input = page.getByLabel(`New weight of ${address}`)
  refused.push(/\/api\/v1\/pools\/web\/backends\//)
  await input.fill('5000')
  await input.press('Enter')
  await page.getByRole('alert').filter({ hasText: 'want an integer from 0 to' }).waitFor()
  assert.equal(await input.inputValue(), '5000', 'what was typed is gone')
  await input.press('Escape')
  const sent = []
  page.on('request', (r) => { if (r.method() === 'PATCH') sent.push(r.postDataJSON()) })
  await row(address).getByRole('button', { name: `Weight of ${address}` }).click()
  await input.fill('9')
  await input.press('Escape') // it is not meant
  await row(address).getByRole('button', { name: `Weight of ${address}` }).click()
  await input.fill('7')
  await input.press('Enter')
  await row(address).getByRole('button', { name: `Weight of ${address}: 7.` }).waitFor()
  assert.deepEqual(sent, [{ weight: 7 }])
  await until('the focus stays', () => page.evaluate(() => document.activeElement.className === 'weight'))
  assert.equal((await of()).weight, 7)
})

test('one session is ended, then those of a filter', async () => {
  const one = await hold('127.77.1.201')
  await visit('#/sessions?client=127.77.1.201', 'Sessions')
  await page.getByRole('button', { name: `End the session of 127.77.1.201:${one.port}` }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'End it' }).click()
  await one.closed
  await page.getByText('No session is like that.').waitFor()
  const three = await Promise.all([1, 2, 3].map(() => hold('127.77.1.202')))
  const client = page.getByRole('searchbox', { name: 'Client' })
  await client.fill('127.77.1.202')
  for (let looks = 0; looks < 2; looks++) await page.waitForResponse(/\/api\/v1\/sessions\?/) // the list is drawn anew meanwhile
  assert.equal(await client.inputValue(), '127.77.1.202', 'what was typed is gone')
  await client.press('Enter')
  await page.getByText('3 sessions like that').waitFor()
  await page.getByRole('button', { name: 'End these' }).click()
  const act = page.getByRole('dialog').getByRole('button', { name: 'End 3' })
  assert.equal(await act.getAttribute('aria-disabled'), 'true', 'it can be done without typing')
  await page.getByLabel('Type 3 to go on').fill('3')
  await act.click()
  await Promise.all(three.map((s) => s.closed))
})

test('a pool finds its backends', async () => {
  await visit('#/pools/dns', 'dns')
  await page.getByRole('heading', { name: 'Discovery' }).waitFor()
  await page.locator('.sources .state', { hasText: 'fresh' }).waitFor()
  find(rig.dir, ['127.77.0.21:53', '127.77.0.22:53', '127.77.0.23:53'])
  await page.getByRole('button', { name: 'Ask now' }).click()
  await row('127.77.0.23:53').waitFor()
  find(rig.dir, ['127.77.0.21:53', '127.77.0.22:53'])
  await row('127.77.0.23:53').waitFor({ state: 'detached' })
  await visit('#/events?q=dns', 'Events')
  await page.getByText('1 added, 3 backends now').waitFor()
})

test('clients that stick to a backend are forgotten', async () => {
  await visit('#/pools/partners', 'partners')
  await page.getByRole('heading', { name: 'Persistence' }).waitFor()
  const sticks = async () => (await api('/persistence')).pools[0]
  await until('clients stick', async () => (await sticks()).hits > 0 && (await sticks()).entries > 2)
  const forget = page.getByRole('button', { name: 'Forget all' })
  await until('the page knows', async () => (await forget.getAttribute('aria-disabled')) !== 'true')
  const { misses } = await sticks()
  await forget.click()
  await page.getByRole('dialog').getByRole('button', { name: 'Forget all' }).click()
  await page.getByRole('dialog').waitFor({ state: 'detached' })
  await until('who was known is new', async () => (await sticks()).misses > misses + 2)
})

test('one client is looked up, and forgotten', async () => {
  await visit('#/pools/partners', 'partners')
  const entry = async () => (await api('/persistence/partners?limit=1')).clients[0]
  await until('somebody sticks', entry)
  const { client, backend } = await entry()
  await page.getByLabel('Client').fill(client)
  await page.getByLabel('Client').press('Enter')
  await page.getByRole('status').filter({ hasText: `${client} has ${backend}` }).waitFor()
  refused.push(/\/api\/v1\/persistence\/partners\//)
  await page.getByRole('button', { name: 'Forget it' }).click()
  await page.getByRole('button', { name: 'Forget it' }).waitFor({ state: 'detached' })
  await page.getByLabel('Client').fill('10.0.0.1')
  await page.getByRole('button', { name: 'Look up' }).click()
  await page.getByRole('alert').filter({ hasText: 'there is no client "10.0.0.1"' }).waitFor()
})

// diffLine is a line of the differences that a dialog shows.
const diffLine = (sign, text) => page.getByRole('dialog').getByRole('row', { name: `${sign} ${text}` })

test('a backend is added as it was shown, and removed', async () => {
  await visit('#/pools/web', 'web')
  const address = '127.77.0.15:8080', of = async () => (await api('/pools/web')).backends.find((b) => b.address === address)
  const before = fs.readFileSync(path.join(rig.dir, 'awe4lb.toml'), 'utf8')
  await page.getByRole('button', { name: 'Add backend' }).click()
  const dialog = page.getByRole('dialog')
  await accessible('a new backend')
  refused.push(/\/api\/v1\/pools\/web\/backends/)
  await dialog.getByLabel('Address').fill('nowhere')
  await dialog.getByLabel('Address').press('Enter')
  await page.getByRole('alert').filter({ hasText: 'address' }).waitFor()
  assert.equal(await dialog.getByLabel('Address').inputValue(), 'nowhere', 'what was typed is gone')
  await dialog.getByLabel('Address').fill(address)
  await dialog.getByLabel('Weight').fill('3')
  await dialog.getByRole('button', { name: 'Show what will change' }).click()
  await dialog.getByText('What will change').waitFor()
  await dialog.getByText(`web/${address} added`).waitFor()
  await diffLine('added', `{ address = "${address}", weight = 3 },`).waitFor()
  assert.equal(await of(), undefined, 'it was done before anybody said so')
  await shot('add-backend')
  await accessible('what a new backend changes')

  // Somebody else is faster: nothing is done before it has been shown anew.
  const answer = await page.evaluate(async () => (await fetch('/api/v1/pools/other', { method: 'PUT', headers: { 'Content-Type': 'application/json' }, body: '{"backends": []}' })).status)
  assert.equal(answer, 200)
  await dialog.getByRole('button', { name: 'Add', exact: true }).click()
  await page.getByRole('alert').filter({ hasText: 'somebody has changed it meanwhile' }).waitFor()
  assert.equal(await of(), undefined, 'it was done although it was refused')
  await dialog.getByRole('button', { name: 'Show it anew' }).click()
  await page.getByRole('alert').waitFor({ state: 'detached' })
  await dialog.getByRole('button', { name: 'Add', exact: true }).click()
  await dialog.waitFor({ state: 'detached' })
  await row(address).waitFor()
  assert.equal((await of()).configured_weight, 3)
  assert.equal(fs.readFileSync(path.join(rig.dir, 'awe4lb.toml'), 'utf8'), before, 'the file has changed')

  await row(address).getByRole('button', { name: address, exact: true }).click()
  await dialog.getByRole('button', { name: 'Remove' }).click()
  await diffLine('removed', `{ address = "${address}", weight = 3 },`).waitFor()
  await dialog.getByRole('button', { name: 'Remove', exact: true }).click()
  await dialog.waitFor({ state: 'detached' })
  await row(address).waitFor({ state: 'detached' })
})

test('a pool and a frontend are made in the file, and removed', async () => {
  const file = () => fs.readFileSync(path.join(rig.dir, 'awe4lb.toml'), 'utf8')
  const dialog = page.getByRole('dialog')
  await page.evaluate(async () => (await fetch('/api/v1/pools/other', { method: 'DELETE' })).status)
  await visit('#/pools', 'Pools')
  await page.getByRole('button', { name: 'New pool' }).click()
  assert.equal(await dialog.getByRole('button', { name: 'Show what will change' }).getAttribute('aria-disabled'), 'true', 'it needs no name')
  await dialog.getByLabel('Name', { exact: true }).fill('blue')
  refused.push(/\/api\/v1\/pools\/blue/)
  await dialog.getByLabel('Its table').fill('policy = "rand"\n')
  await dialog.getByRole('button', { name: 'Show what will change' }).click()
  await page.getByRole('alert').filter({ hasText: 'got "rand"' }).waitFor()
  assert.equal(await dialog.getByLabel('Its table').inputValue(), 'policy = "rand"\n', 'what was typed is gone')
  await dialog.getByLabel('Its table').fill(`policy = "random"\nbackends = [{ address = "${backends[0]}" }]\n`)
  await accessible('a new pool')
  await dialog.getByRole('button', { name: 'Show what will change' }).click()
  await diffLine('added', '[pools.blue]').waitFor()
  await dialog.getByLabel('Write it to').check()
  await dialog.getByRole('button', { name: 'Make it' }).click()
  await heading('blue').waitFor()
  await row(backends[0]).waitFor()
  assert.match(file(), /\[pools\.blue\]/)

  await visit('#/frontends', 'Frontends')
  await page.getByRole('button', { name: 'New frontend' }).click()
  await dialog.getByLabel('Name', { exact: true }).fill('blue')
  await dialog.getByLabel('Its table').fill('bind = ["127.77.0.1:8090"]\npool = "blue"\n')
  await dialog.getByRole('button', { name: 'Show what will change' }).click()
  await dialog.getByRole('button', { name: 'Make it' }).click()
  await heading('blue').waitFor()
  await page.getByRole('button', { name: 'Remove' }).click()
  await diffLine('removed', '[frontends.blue]').waitFor()
  await dialog.getByRole('button', { name: 'Remove' }).click()
  await heading('Frontends').waitFor()
  await visit('#/pools/blue', 'blue')
  await page.getByRole('button', { name: 'Remove pool' }).click()
  await dialog.getByLabel('Write it to').check()
  await dialog.getByRole('button', { name: 'Remove', exact: true }).click()
  await heading('Pools').waitFor()
  assert.doesNotMatch(file(), /blue/)
})

test('a pool is changed as it is written', async () => {
  const file = () => fs.readFileSync(path.join(rig.dir, 'awe4lb.toml'), 'utf8'), before = file()
  await visit('#/pools/web', 'web')
  await page.getByRole('button', { name: 'Edit', exact: true }).click()
  await heading('Edit web').waitFor()
  const editor = page.getByLabel('Table of web, TOML'), dialog = page.getByRole('dialog')
  const review = page.getByRole('button', { name: 'Review and apply' }), often = page.locator('.often')
  const fine = () => page.locator('.verdict[aria-busy=false]', { hasText: 'No mistakes' }).waitFor()
  await fine()
  assert.equal(await reason(review), 'Nothing has changed.')

  // A mistake is told at its line, and what was typed stays.
  refused.push(/\/api\/v1\/pools\/web\/table/)
  await often.getByRole('button', { name: 'policy' }).click()
  await page.keyboard.press('Home')
  await page.keyboard.press('Shift+End')
  await page.keyboard.insertText('policy = "rand"')
  await page.locator('.verdict').getByRole('button', { name: 'line 2' }).waitFor()
  await page.locator('.verdict', { hasText: 'got "rand"' }).waitFor()
  await page.locator('.cm-lint-marker-error').waitFor()
  assert.equal(await reason(review), 'It has mistakes.')
  await page.keyboard.press('Home')
  await page.keyboard.press('Shift+End')
  await page.keyboard.insertText('policy = "leasttime" # since the third is slow')
  await fine()

  // What is not there yet is written where it belongs, its value selected.
  await often.getByRole('button', { name: 'health.fall' }).click()
  await page.keyboard.insertText('5')
  await often.getByRole('button', { name: 'queue.size' }).click()
  await page.keyboard.insertText('64')
  await often.locator('li', { hasText: 'health.fall' }).getByText(/^line \d+$/).waitFor()
  await fine()
  await shot('edit-pool')

  // Somebody changes another table: nothing is in the way. Somebody is faster while it is shown: it is shown anew.
  const put = (name, query = '') => page.evaluate(async ([n, q]) => (await fetch(`/api/v1/pools/${n}${q}`, { method: 'PUT', headers: { 'Content-Type': 'application/json' }, body: '{"backends": []}' })).status, [name, query])
  assert.equal(await put('other'), 200)
  await fine()
  await review.click()
  await dialog.getByText('What will change').waitFor()
  await diffLine('added', 'policy = "leasttime" # since the third is slow').waitFor()
  await diffLine('added', 'fall = 5').waitFor()
  assert.equal(await put('another'), 200)
  await dialog.getByRole('button', { name: 'Apply', exact: true }).click()
  await dialog.getByRole('alert').filter({ hasText: 'somebody has changed it meanwhile' }).waitFor()
  await dialog.getByRole('button', { name: 'Show it anew' }).click()
  await dialog.getByRole('alert').waitFor({ state: 'detached' })
  await diffLine('added', 'size = 64').waitFor()
  await page.evaluate(async () => { for (const n of ['other', 'another']) await fetch('/api/v1/pools/' + n, { method: 'DELETE' }) })
  await dialog.getByRole('button', { name: 'Apply', exact: true }).click()
  await dialog.getByRole('alert').waitFor()
  await dialog.getByRole('button', { name: 'Show it anew' }).click()
  await dialog.getByRole('alert').waitFor({ state: 'detached' })
  await dialog.getByLabel('Write it to').check()
  await dialog.getByRole('button', { name: 'Apply', exact: true }).click()
  await dialog.waitFor({ state: 'detached' })
  await page.getByRole('status').filter({ hasText: 'Applied' }).waitFor()
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Review and apply', 'the focus is lost')
  assert.equal((await api('/pools/web')).policy, 'leasttime')
  assert.equal(file().trimEnd(), before.trimEnd().replace('policy = "roundrobin"', 'policy = "leasttime" # since the third is slow')
    .replace('[pools.web.health]\n', '[pools.web.health]\nfall = 5\n').replace('timeout = "400ms"\n', 'timeout = "400ms"\n\n[pools.web.queue]\nsize = 64\n'))
  assert.equal(await reason(review), 'Nothing has changed.')
})

test('two who change one pool at once are told', async () => {
  await visit('#/pools/web/edit', 'Edit web')
  const editor = page.getByLabel('Table of web, TOML'), conflict = page.getByRole('region', { name: 'Somebody else’s change' })
  await page.locator('.verdict', { hasText: 'No mistakes' }).waitFor()
  const theirs = (from, to) => page.evaluate(async ([a, b]) => {
    const text = await (await fetch('/api/v1/pools/web/table')).text()
    return (await fetch('/api/v1/pools/web/table', { method: 'PUT', headers: { 'Content-Type': 'application/toml' }, body: text.replace(a, b) })).status
  }, [from, to])
  // Who has typed nothing sees what is new.
  assert.equal(await theirs('fall = 5', 'fall = 6'), 200)
  await editor.getByText('fall = 6').waitFor()
  await editor.press('Control+Home')
  await page.keyboard.insertText('# mine\n')
  assert.equal(await theirs('fall = 6', 'fall = 7'), 200)
  await conflict.getByRole('row', { name: 'added fall = 7' }).waitFor()
  assert.equal(await page.getByRole('button', { name: 'Review and apply' }).getAttribute('aria-disabled'), 'true')
  await accessible('two changes')
  // What was typed outlives a look at another view.
  await visit('#/pools/web', 'web')
  await visit('#/pools/web/edit', 'Edit web')
  await conflict.waitFor()
  await editor.getByText('# mine').waitFor()
  await conflict.getByRole('button', { name: 'Keep mine' }).click()
  await page.locator('.verdict[aria-busy=false]', { hasText: 'No mistakes' }).waitFor()
  await page.getByRole('button', { name: 'Review and apply' }).click()
  await diffLine('removed', 'fall = 7').waitFor()
  await diffLine('added', '# mine').waitFor()
  await page.keyboard.press('Escape')
  assert.equal(await theirs('fall = 7', 'fall = 5'), 200)
  await conflict.getByRole('button', { name: 'Take theirs' }).click()
  await conflict.waitFor({ state: 'detached' })
  await editor.getByText('# mine').waitFor({ state: 'detached' })
  // Tab leaves the editor.
  await editor.press('Tab')
  assert.equal(await page.evaluate(() => document.activeElement.closest('.code')), null)
})

test('what is often changed is right', async () => {
  for (const [address, name] of [['pools/partners', 'partners'], ['frontends/web', 'web'], ['frontends/dns', 'dns']]) {
    await visit(`#/${address}/edit`, `Edit ${name}`)
    const buttons = page.locator('.often li'), fine = page.locator('.verdict[aria-busy=false]', { hasText: 'No mistakes' })
    await fine.waitFor()
    await page.locator('.often button').evaluateAll(async (all) => {
      for (const b of all) {
        b.click()
        await new Promise((next) => requestAnimationFrame(() => requestAnimationFrame(next)))
      }
    })
    await until('each stands on a line', async () => (await buttons.locator('.number').allTextContents()).every((t) => /^line \d+$/.test(t)))
    await page.getByRole('button', { name: 'Review and apply' }).click() // which waits for the verdict
    await diffLine('added', 'bandwidth = "100MiB"').or(diffLine('added', 'size = 100')).first().waitFor()
    await page.keyboard.press('Escape')
    await page.getByRole('button', { name: 'Undo all' }).click()
  }
})

test('who is at a limit is shown, and sent away', async () => {
  const all = await Promise.all(Array.from({ length: 8 }, () => hold('127.77.1.210')))
  await assert.rejects(hold('127.77.1.210'), 'a ninth session came in')
  await visit('#/limits', 'Limits')
  const source = row('127.77.1.210')
  await source.getByText('100 %').waitFor()
  await row('max_connections_per_source').locator('.state:visible', { hasText: /was met|met now/ }).waitFor()
  await until('a limit is met while somebody looks', async () => {
    await hold('127.77.1.210').then((s) => s.destroy(), () => {})
    return await page.getByRole('status').filter({ hasText: /Met now: max_connections_per_source of web/ }).count()
  })
  await shot('limits')
  await source.getByRole('button', { name: 'End the sessions of 127.77.1.210' }).click()
  const dialog = page.getByRole('dialog')
  await accessible('who is sent away')
  await dialog.getByLabel('Type 8 to go on').fill('8')
  await dialog.getByRole('button', { name: 'End 8' }).click()
  await Promise.all(all.map((s) => s.closed))
  await source.waitFor({ state: 'detached' })
})

test('the log is made louder', async () => {
  await visit('#/process', 'Process')
  await page.getByRole('button', { name: 'warn', exact: true, pressed: true }).waitFor()
  await page.getByRole('button', { name: 'error', exact: true }).click()
  await page.getByRole('button', { name: 'error', exact: true, pressed: true }).waitFor()
  assert.equal((await api('/log')).level, 'error')
  await page.getByRole('button', { name: 'Shut down' }).click()
  const act = page.getByRole('dialog').getByRole('button', { name: 'Shut down' })
  assert.equal(await act.getAttribute('aria-disabled'), 'true', 'it can be done without typing')
  await accessible('the end')
  await page.keyboard.press('Escape')
})

test('who has done what is kept', async () => {
  await visit('#/events', 'Events')
  await page.getByRole('button', { name: 'Who did what' }).click()
  await row('PUT /log').locator('.state:visible', { hasText: 'done' }).first().waitFor()
  await page.getByRole('searchbox', { name: 'Filter calls' }).fill('refused')
  await page.getByText('No call has “refused”.').waitFor()
  await page.getByRole('searchbox', { name: 'Filter calls' }).fill('412')
  await row('/pools/web/backends').locator('.state:visible', { hasText: 'refused, 412' }).first().waitFor()
})

test('the keyboard leads everywhere', async () => {
  await visit('#/', 'Overview')
  await page.keyboard.press('g')
  await page.keyboard.press('p')
  await heading('Pools').waitFor()
  await page.keyboard.press('/')
  await page.keyboard.type('part')
  await page.getByRole('link', { name: 'partners' }).waitFor()
  await page.waitForURL(/#\/pools\?q=part$/)
  assert.equal(await page.getByRole('searchbox', { name: 'Filter pools' }).inputValue(), 'part')
  await until('one pool is left', async () => (await page.locator('tr[data-row]').count()) === 1)
  await page.keyboard.press('Escape')
  await page.keyboard.press('?')
  await page.getByRole('dialog', { name: 'Keys' }).waitFor()
  await page.keyboard.press('Escape')
  await page.getByRole('dialog').waitFor({ state: 'detached' })
  await page.goBack()
  await heading('Overview').waitFor()
})

test('a thousand backends scroll', async () => {
  await visit('#/pools/many', 'many')
  await page.locator('tr[data-row]').nth(20).waitFor()
  assert.equal(await page.getByRole('table').getAttribute('aria-rowcount'), String(many + 1))
  const devtools = await page.context().newCDPSession(page)
  // What the page's thread spends on script, style and layout, in milliseconds of CPU: a busy machine does not add to it.
  await devtools.send('Performance.enable', { timeDomain: 'threadTicks' })
  const spent = async () => {
    const { metrics } = await devtools.send('Performance.getMetrics')
    return 1000 * metrics.filter((m) => ['ScriptDuration', 'LayoutDuration', 'RecalcStyleDuration'].includes(m.name)).reduce((n, m) => n + m.value, 0)
  }
  const began = await spent()
  const frames = await page.evaluate(async () => {
    const gaps = []
    for (let last = performance.now(), y = 0; y < document.documentElement.scrollHeight; y += 200) {
      scrollTo(0, y)
      const now = await new Promise(requestAnimationFrame)
      gaps.push(now - last)
      last = now
    }
    return gaps.sort((a, b) => a - b)
  })
  const each = (await spent() - began) / frames.length
  console.log(`scrolling: ${each.toFixed(1)} ms of work a frame; half of the frames came within ${frames[Math.floor(frames.length / 2)].toFixed(1)} ms`)
  assert.ok(each < 12, `a frame takes ${each} ms of work; 60 a second leave 16`)
  await page.getByText('127.77.19.231:9000').waitFor()
  const there = await page.locator('tr[data-row]').count()
  assert.ok(there < 80, `${there} rows exist at once`)
})

test('what is typed outlives a process that hangs, and is checked again', async () => {
  await visit('#/pools/partners/edit', 'Edit partners')
  const verdict = (text) => page.locator('main [role=status]', { hasText: text }).waitFor({ timeout: 30_000 })
  const editor = page.getByLabel('Table of partners, TOML')
  await verdict('No mistakes')
  rig.lb.kill('SIGSTOP')
  await editor.press('Control+Home')
  await page.keyboard.insertText('# typed meanwhile\n')
  await verdict('Not checked: awe4lb does not answer.')
  assert.equal(await reason(page.getByRole('button', { name: 'Review and apply' })), 'awe4lb does not answer.')
  rig.lb.kill('SIGCONT')
  await verdict('No mistakes')
  await editor.getByText('# typed meanwhile').waitFor()
  await page.getByRole('button', { name: 'Undo all' }).click()
})

test('numbers that are old are said to be', async () => {
  await visit('#/', 'Overview')
  await page.locator('.link-state', { hasText: 'Live' }).waitFor()
  rig.lb.kill('SIGSTOP')
  await page.getByRole('alert').filter({ hasText: 'Stale since' }).waitFor()
  assert.ok(await page.locator('.chart.stale').count(), 'the charts look alive')
  await shot('stale')
  rig.lb.kill('SIGCONT')
  await page.getByRole('alert').waitFor({ state: 'detached', timeout: 30_000 })
  await page.locator('.link-state', { hasText: 'Live' }).waitFor()
})

test('a configuration is edited, refused, applied and rolled back', async () => {
  const { paths } = await api('/openapi.json')
  const kept = paths['/api/v1/configs'] !== undefined
  if (!kept) refused.push(/\/api\/v1\/configs$/)
  await visit('#/configuration', 'Configuration')
  if (!kept) { // where that part of the API is missing the page says so
    await page.getByText('This awe4lb has no configurations to edit.').waitFor()
    return
  }
  await page.getByRole('link', { name: 'main' }).click()
  const editor = page.getByLabel('Configuration, TOML')
  await editor.waitFor()
  await page.locator('.verdict', { hasText: 'No mistakes' }).waitFor()
  const lines = fs.readFileSync(path.join(rig.dir, 'awe4lb.toml'), 'utf8').split('\n')
  const type = async (n, text) => { // replaces line n
    await editor.press('Control+Home')
    for (let i = 1; i < n; i++) await editor.press('ArrowDown')
    await editor.press('Home')
    await editor.press('Shift+End')
    await page.keyboard.insertText(text)
  }
  const at = lines.indexOf('policy = "leastconn"') + 1
  await type(at, 'policy = "rand"')
  await page.locator('.verdict').getByRole('button', { name: `line ${at}` }).waitFor()
  await page.locator('.cm-lint-marker-error').waitFor()
  assert.equal(await page.getByRole('button', { name: 'Review and apply' }).getAttribute('aria-disabled'), 'true')
  await shot('mistake')
  await type(at, 'policy = "p2c"')
  await page.locator('.verdict', { hasText: 'No mistakes' }).waitFor()
  await page.getByRole('button', { name: 'Review and apply' }).click()
  const dialog = page.getByRole('dialog')
  await dialog.getByText('What will change').waitFor()
  await dialog.getByRole('row', { name: 'policy = "p2c"' }).waitFor()
  await shot('review')
  await accessible('the review')
  await dialog.getByRole('button', { name: 'Apply' }).click()
  await dialog.waitFor({ state: 'detached' })
  assert.equal((await api('/pools/partners')).policy, 'p2c')
  await page.getByRole('button', { name: 'History' }).click()
  await page.getByRole('button', { name: /^Compare version/ }).last().click() // the first that was kept
  await page.getByRole('dialog').getByRole('row', { name: 'policy = "leastconn"' }).waitFor()
  await page.getByRole('dialog').getByRole('button', { name: 'Roll back' }).click()
  await page.getByRole('dialog').waitFor({ state: 'detached' })
  await until('the policy is back', async () => (await api('/pools/partners')).policy === 'leastconn')
})

test('a configuration is run and deleted by thumb', async () => {
  const put = (name, text) => page.evaluate(async ([n, t]) => (await fetch('/api/v1/configs/' + n, { method: 'PUT', headers: { 'Content-Type': 'application/toml', 'If-None-Match': '*' }, body: t })).status, [name, text])
  const main = await page.evaluate(async () => (await fetch('/api/v1/configs/main', { headers: { Accept: 'application/toml' } })).text())
  assert.equal(await put('night', main.replace('policy = "leastconn"', 'policy = "random"')), 200)
  await page.setViewportSize(phone)
  await visit('#/configuration', 'Configuration')
  await row('night').locator('.state:visible', { hasText: 'kept' }).waitFor()
  const dialog = page.getByRole('dialog'), of = (act, name) => row(name).getByRole('button', { name: `${act} ${name}`, exact: true })
  for (const act of ['Run', 'Delete']) {
    const { x, width, height } = await of(act, 'night').boundingBox()
    assert.ok(width >= 44 && height >= 44, `${act} is ${width} x ${height}`)
    assert.ok(x >= 0 && x + width <= phone.width, `${act} is at ${x}, ${width} wide`)
  }
  await of('Run', 'night').click()
  await dialog.getByText('It takes the place of main.').waitFor()
  await accessible('the question before another runs, on a phone')
  await dialog.getByRole('button', { name: 'Run it' }).click()
  await dialog.waitFor({ state: 'detached' })
  await row('night').locator('.state:visible', { hasText: 'runs' }).waitFor()
  assert.equal((await api('/pools/partners')).policy, 'random')
  await of('Run', 'main').click()
  await dialog.getByRole('button', { name: 'Run it' }).click()
  await dialog.waitFor({ state: 'detached' })
  assert.equal((await api('/pools/partners')).policy, 'leastconn')
  await of('Delete', 'night').click()
  const act = dialog.getByRole('button', { name: 'Delete' })
  assert.equal(await act.getAttribute('aria-disabled'), 'true', 'it can be done without typing')
  await dialog.getByLabel('Type night to go on').fill('night')
  await act.click()
  await dialog.waitFor({ state: 'detached' })
  await row('night').waitFor({ state: 'detached' })
  assert.deepEqual((await api('/configs')).configs.map((c) => c.name), ['main'])
  await page.setViewportSize(wide)
})

// The long table is one of which most rows do not exist.
const views = [['pools/many', 'many'], ['', 'Overview'], ['frontends', 'Frontends'], ['frontends/web', 'web'], ['pools', 'Pools'], ['pools/web', 'web'], ['pools/partners', 'partners'], ['pools/web/edit', 'Edit web'],
  ['sessions', 'Sessions'], ['limits', 'Limits'], ['events', 'Events'], ['events?tab=audit', 'Events'], ['process', 'Process'], ['certificates', 'Certificates'], ['configuration', 'Configuration']]

test('what a row is about is never squeezed out', async () => {
  const at = watched(await page.context().newPage()), squeezed = []
  for (const [address, name] of views.filter(([a]) => !a.endsWith('/edit') && a !== '' && a !== 'frontends/web')) {
    await visit('#/' + address, name, at)
    await at.locator('.table, .empty, .events').first().waitFor()
    for (const width of [360, 390, 720, 768, 960, 961, 1024, 1280, 1360, 1361, 1366, 1440, 1640, 1641, 1920, 2560]) {
      await at.setViewportSize({ width, height: 800 })
      const most = width < 400 ? 110 : 140
      const widths = await at.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done([...document.querySelectorAll('.table th:first-child')].map((th) => th.offsetWidth))))))
      for (const w of widths) if (w < most) squeezed.push(`the first column of ${address} has ${w} px at ${width}`)
      const beyond = await at.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
      if (beyond > 0) squeezed.push(`${address} is ${beyond} px too wide at ${width}`)
    }
  }
  assert.deepEqual(squeezed, [])
  await at.close()
})

// Both at once: they wait for the process, and for seconds to pass, more than they compute.
test('every view is accessible and fits', async () => {
  const looks = async (scheme) => {
    const at = watched(await page.context().newPage())
    await at.emulateMedia({ colorScheme: scheme })
    for (const [size, viewport] of Object.entries({ wide, tablet, phone })) {
      await at.setViewportSize(viewport)
      for (const [address, name] of views) {
        await visit('#/' + address, name, at)
        await at.locator('.link-state', { hasText: 'Live' }).waitFor({ state: 'attached' })
        if (address === '') await at.locator('.paths .node').first().waitFor()
        if (address.endsWith('/edit')) await at.locator('.verdict[aria-busy=false]').waitFor()
        await shot(`${address.replaceAll('/', '-') || 'overview'}-${size}-${scheme}`, at)
        await accessible(`${name}, ${size}, ${scheme}`, at)
        const beyond = await at.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
        assert.ok(beyond <= 0, `${name} is ${beyond} px too wide at ${viewport.width}`)
        if (size === 'phone') {
          const small = await at.locator('button.button:visible, a.button:visible, .tabs button:visible, input:visible:not([type=checkbox]), select:visible').evaluateAll((all) => all.map((b) => ({ what: b.getAttribute('aria-label') || b.textContent || b.id, w: b.offsetWidth, h: b.offsetHeight })).filter((b) => b.w < 44 || b.h < 44))
          assert.deepEqual(small, [], `${name} has what no thumb can press`)
        }
        for (const width of await at.locator('.table th:first-child').evaluateAll((all) => all.map((th) => th.offsetWidth))) {
          assert.ok(width >= 120, `the first column of ${name} has ${width} px at ${viewport.width}`)
        }
      }
    }
    await at.close()
  }
  await Promise.all(['light', 'dark'].map(looks))
})

test('everything stops, and what ran runs again', async () => {
  await visit('#/configuration', 'Configuration')
  await page.getByRole('button', { name: 'Stop', exact: true }).click()
  const dialog = page.getByRole('dialog')
  const act = dialog.getByRole('button', { name: 'Stop' })
  assert.equal(await act.getAttribute('aria-disabled'), 'true', 'it can be done without typing')
  await dialog.getByLabel('Type stop to go on').fill('stop')
  await act.click()
  await page.getByRole('alert').filter({ hasText: 'Stopped: no frontend runs.' }).waitFor()
  await assert.rejects(hold('127.77.1.203'), 'somebody listens')
  await row('main').locator('.state:visible', { hasText: 'stopped' }).waitFor()
  await accessible('stopped')
  await visit('#/', 'Overview')
  await page.getByText('Stopped: no frontend runs until').waitFor()
  await visit('#/configuration', 'Configuration')
  await row('main').getByRole('button', { name: 'Run main' }).click()
  await dialog.getByRole('button', { name: 'Run it' }).click()
  await dialog.waitFor({ state: 'detached' })
  await row('main').locator('.state:visible', { hasText: 'runs' }).waitFor();
  (await hold('127.77.1.203')).destroy()
})

test('why something is off is seen by key, by mouse and by thumb', async () => {
  await visit('#/configuration', 'Configuration')
  const run = row('main').getByRole('button', { name: 'Run main' }), bubble = page.getByRole('tooltip', { name: 'It runs already.' })
  await run.waitFor()
  assert.equal(await reason(run), 'It runs already.')
  assert.equal(await bubble.count(), 0)
  await row('main').getByRole('link', { name: 'main' }).focus()
  await page.keyboard.press('Tab')
  await bubble.waitFor()
  assert.equal(await run.evaluate((b) => b === document.activeElement), true)
  const { x, y, width, height } = await bubble.boundingBox()
  assert.ok(x >= 0 && y >= 0 && x + width <= wide.width && y + height <= wide.height, 'the bubble is cut off')
  await accessible('a reason')
  await page.keyboard.press('Escape')
  await bubble.waitFor({ state: 'detached' })
  await run.hover()
  await bubble.waitFor()
  await page.mouse.move(10, 10)
  await bubble.waitFor({ state: 'detached' })
  await page.setViewportSize(phone)
  await run.click({ force: true })
  await bubble.waitFor()
  await page.getByRole('heading', { level: 1 }).click()
  await bubble.waitFor({ state: 'detached' })
  await page.setViewportSize(wide)
  // Above a dialog too.
  await page.getByRole('button', { name: 'Stop', exact: true }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Stop' }).click({ force: true })
  await page.getByRole('tooltip', { name: 'Type stop first.' }).waitFor()
  await page.keyboard.press('Escape')
  await page.getByRole('dialog').waitFor()
  await page.keyboard.press('Escape')
  await page.getByRole('dialog').waitFor({ state: 'detached' })
})

// What a view has for whom: its buttons with the role they need, and what it says to whoever has another one.
const roles = ['read', 'operate', 'configure']
const acts = [
  ['frontends', 'Frontends', { 'New frontend': 'configure' }, { configure: 'making frontends needs' }],
  ['frontends/web', 'web', { Edit: 'configure', Remove: 'configure' }, { configure: 'editing and removing the frontend needs' }],
  ['pools', 'Pools', { 'New pool': 'configure' }, { configure: 'making pools needs' }],
  ['pools/web', 'web', { [`Drain ${backends[0]}`]: 'operate', [`Maintenance ${backends[0]}`]: 'operate', 'Edit': 'configure', 'Add backend': 'configure', 'Remove pool': 'configure' },
    { operate: 'draining, maintenance and changing weights need', configure: 'editing the pool and adding and removing backends need' }],
  ['pools/partners', 'partners', { 'Forget all': 'operate' }, { operate: 'draining, maintenance, changing weights and forgetting clients need', configure: 'editing the pool and adding and removing backends need' }],
  ['pools/dns', 'dns', { 'Ask now': 'operate' }, { operate: 'draining, maintenance, changing weights and asking sources now need', configure: 'editing the pool and adding and removing backends need' }],
  [`pools/web?backend=${backends[0]}`, 'web', { Drain: 'operate', Maintenance: 'operate', Remove: 'configure', Close: 'read' }, { operate: 'draining, maintenance and changing the weight need', configure: 'removing it needs' }, 'dialog'],
  ['sessions', 'Sessions', { 'End all': 'operate' }, { operate: 'ending sessions needs' }],
  ['limits', 'Limits', { 'End the sessions of 127.77.1.220': 'operate' }, { operate: 'ending sessions needs' }],
  ['process', 'Process', { debug: 'operate', 'Shut down': 'operate', Upgrade: 'configure' }, { operate: 'changing the level of the log and shutting down need', configure: 'upgrading needs' }],
  ['configuration', 'Configuration', { Reload: 'operate', Stop: 'configure', 'New configuration': 'configure', 'Run main': 'configure', 'Delete main': 'configure' },
    { operate: 'reloading needs', configure: 'making, running, stopping and deleting configurations needs' }],
  ['configuration/main', 'main', { History: 'read', 'Review and apply': 'configure', 'Save without applying': 'configure' }, { configure: 'changing it, seeing its secrets and going back to a version need' }],
]

test('each role finds what it may do, and what it may not in words', async () => {
  const held = await Promise.all(Array.from({ length: 7 }, () => hold('127.77.1.220'))) // nearest to its limit: its row is on the screen
  for (const [user, role] of [['rob', 'read'], ['olga', 'operate'], ['ada', 'configure']]) {
    await visit('#/', 'Overview')
    await page.getByRole('button', { name: 'Log out' }).click()
    await logIn(user)
    for (const [address, name, buttons, beyond, within] of acts) {
      for (const viewport of [wide, phone]) {
        const where = `${address} as ${role} at ${viewport.width}`
        await page.setViewportSize(viewport)
        await visit('#/' + address, name)
        const at = page.locator(within ?? 'main')
        const missing = Object.entries(beyond).filter(([needs]) => roles.indexOf(role) < roles.indexOf(needs))
        const text = missing.map(([needs, acts]) => `${acts} ${needs}`).join('; ')
        const said = at.locator('.beyond')
        if (text) await said.filter({ hasText: `Your role is ${role}. ${text[0].toUpperCase()}${text.slice(1)}.` }).waitFor()
        for (const [button, needs] of Object.entries(buttons)) {
          const it = at.getByRole('button', { name: button, exact: true })
          const elsewhere = viewport === phone && address === 'pools/web' && needs === 'operate' // behind More
          if (roles.indexOf(role) >= roles.indexOf(needs) && !elsewhere) await it.waitFor()
          else assert.equal(await it.count(), 0, `${button} is on ${where}`)
        }
        if (!text) assert.equal(await said.count(), 0, `something is missing on ${where}`)
        assert.equal(await page.getByText('This needs the role').count(), 0, `something is there and off on ${where}`) // in the reason of a button
        if (role === 'read') await accessible(where)
      }
    }
    await page.setViewportSize(wide)
  }
  held.forEach((s) => s.destroy())
})

test('who has logged out is asked for nothing', async () => {
  const at = watched(await (await browser.newContext({ viewport: wide })).newPage())
  await at.clock.install()
  await at.goto(admin)
  await logIn('rob', at)
  await at.locator('.link-state', { hasText: 'Live' }).waitFor()
  await at.getByRole('button', { name: 'Log out' }).click()
  await at.getByLabel('Password').waitFor()
  const asked = []
  at.on('request', (r) => asked.push(r.url()))
  await at.clock.runFor(60_000)
  assert.deepEqual(asked, [])
  await logIn('rob', at)
  await at.locator('.link-state', { hasText: 'Live' }).waitFor()
  await at.context().close()
})

test('who may only read changes nothing', async () => {
  await visit('#/', 'Overview')
  await page.getByRole('button', { name: 'Log out' }).click()
  await logIn('rob')
  await visit('#/pools/web', 'web')
  await row(backends[0]).waitFor()
  assert.equal(await page.locator('.weight').count(), 0, 'weights look as if they could be changed')
  await visit('#/events?tab=audit', 'Events')
  await page.getByText('The audit is for those who may change the configuration.').waitFor()
  await visit('#/pools/web/edit', 'Edit web')
  await page.getByText('This needs the role configure; you have read.').waitFor()
  assert.equal(await page.locator('.code').count(), 0, 'who may not change a pool has an editor')
  refused.push(/\/api\/v1\/pools\/web\/table/)
  assert.equal(await page.evaluate(async () => (await fetch('/api/v1/pools/web/table')).status), 403)
  assert.equal(await page.evaluate(async () => (await fetch('/api/v1/pools/web/table?dry_run=true', { method: 'PUT', headers: { 'Content-Type': 'application/toml' }, body: '' })).status), 403)
  await visit('#/configuration/main', 'main')
  await page.getByLabel('Configuration, TOML').waitFor()
  await page.getByRole('button', { name: 'History' }).click()
  await page.getByRole('button', { name: /^Compare version/ }).first().click()
  await page.getByRole('dialog').getByText('To go back to it would change this:').waitFor()
  assert.equal(await page.getByRole('dialog').getByRole('button', { name: 'Roll back' }).count(), 0)
  await page.keyboard.press('Escape')
  // Whoever changes things sees the attempt, and not what was only asked by those who may.
  await visit('#/', 'Overview')
  await page.getByRole('button', { name: 'Log out' }).click()
  await logIn('ada')
  await visit('#/events?tab=audit&q=dry_run', 'Events')
  await row('/pools/web/table?dry_run=true').locator('.state:visible', { hasText: 'refused, 403' }).waitFor()
  assert.equal(await page.locator('tr[data-row]').count(), 1)
})

test('nothing strayed, nothing went wrong unseen', () => {
  assert.deepEqual(strayed, [], 'requests to other hosts')
  assert.deepEqual(errors, [], 'errors in the console')
})
